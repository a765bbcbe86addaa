"""YAML from strangers, without anchors: a few lines of aliases of aliases stand for more than any memory holds."""

from typing import Any

import yaml


class PlainLoader(yaml.SafeLoader):
    """As `yaml.SafeLoader`; an alias is an error."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As the base class; raises `yaml.YAMLError` for an alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"it holds the alias *{event.anchor}, and aliases are not taken", event.start_mark
            )
        return super().compose_node(parent, index)
