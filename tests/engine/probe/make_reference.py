"""Writes reference.json beside this file: attention of the starter models as transformers computes it.

    CONVERT_VENV/bin/python tests/engine/probe/make_reference.py     (the environment of examples/support_bot/requirements-convert.txt)

An independent computation: torch's own forward pass with `output_attentions`, figures by their definitions, in float64.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from grouped import TOKENS, write  # type: ignore[import-not-found]  # noqa: E402 - beside this file, in an environment without the rest

MODELS = HERE.parents[2] / "examples" / "support_bot" / "models"
TEXTS = (
    ("Where is my order 4471900?", "Order 4471900 is on its way and will be with you within 2 working days."),
    ("how do I cancel my gym membership?", "I am sorry, I can only help with questions about Larkfield."),
    ("hi", ""),
    ("the lamp from order 5566771 came broken, what now, nobody answers the phone and I am really very cross", ""),
)


def means(values: list[list[float]]) -> list[float]:
    return [sum(one) / len(one) for one in values]


def figures(model: Any, tokenizer: Any) -> dict[str, Any]:
    import torch

    layers = model.config.num_hidden_layers
    entropy: list[list[float]] = [[] for _ in range(layers)]
    ratio: list[list[float]] = [[] for _ in range(layers)]
    sink: list[list[float]] = [[] for _ in range(layers)]
    tokens: list[list[int]] = []
    nats, scored = 0.0, 0
    for question, answer in TEXTS:
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        said = [*tokenizer.encode(answer, add_special_tokens=False), model.config.eos_token_id] if answer else []
        ids = torch.tensor([prompt + said])
        tokens.append(ids[0].tolist())
        with torch.no_grad():
            out = model(ids, output_attentions=True)
        if said:
            logs = torch.log_softmax(out.logits[0].double(), -1)
            for at, token in enumerate(said, len(prompt)):
                nats -= logs[at - 1, token].item()
                scored += 1
        for layer, attention in enumerate(out.attentions):
            for head in attention[0].double():
                for query in range(1, len(head)):
                    row = head[query, : query + 1]
                    found = torch.distributions.Categorical(probs=row).entropy().item()
                    entropy[layer].append(found)
                    ratio[layer].append(found / torch.log(torch.tensor(query + 1.0, dtype=torch.float64)).item())
                    sink[layer].append(row[0].item())

    return {
        "tokens": tokens,
        "perplexity": float(torch.exp(torch.tensor(nats / scored, dtype=torch.float64))),
        "scored": scored,
        "entropy_nats": means(entropy),
        "entropy_ratio": means(ratio),
        "sink_ratio": means(sink),
    }


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = {}
    for name in ("support-bot-v1.0.0", "support-bot-v1.1.0"):
        folder = MODELS / name / "safetensors"
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        made[name] = figures(model, AutoTokenizer.from_pretrained(folder))
    with tempfile.TemporaryDirectory() as temporary:
        tiny = AutoModelForCausalLM.from_pretrained(
            write(Path(temporary)), dtype=torch.float32, attn_implementation="eager"
        )
    grouped = []
    for tokens in TOKENS:
        with torch.no_grad():
            out = tiny.eval()(torch.tensor([tokens]), output_attentions=True)
        last = [attention[0, :, -1].tolist() for attention in out.attentions]
        grouped.append({"logits": out.logits[0, -1].tolist(), "last_queries": last})
    told = {"texts": TEXTS, "models": made, "grouped": grouped}
    (HERE / "reference.json").write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
