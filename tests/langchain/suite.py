"""LangChain's standard integration tests of a chat model, over the gateway and the starter model.

Run by `tests/system/test_langchain.py` in an environment of its own, with `PENSTOCK_TEST_URL` and `PENSTOCK_TEST_KEY` set.
"""

import os
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestPenstock(ChatModelIntegrationTests):  # type: ignore[misc]
    """What the starter model lacks is said here and nowhere else; all else must pass."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI  # type: ignore[no-any-return]

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "support-bot",
            "base_url": os.environ["PENSTOCK_TEST_URL"] + "/v1",
            "api_key": os.environ["PENSTOCK_TEST_KEY"],
            "max_retries": 0,
            "timeout": 60,
            "stream_usage": True,
        }

    # An 8 M parameter model that was trained to answer questions of a shop's customers calls no tools,
    @property
    def has_tool_calling(self) -> bool:
        return False

    # and the embedded engine forces no grammar on it,
    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return False


class TestPenstockResponses(TestPenstock):
    """The same by the Responses API."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}
