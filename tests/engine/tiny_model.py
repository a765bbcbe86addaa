"""A Llama with random weights in OpenVINO's form, built without torch: small, quick, the same each time.

Its tokenizer is byte-level BPE (256 bytes, a few merges, a few special tokens), so sampled text is full of broken UTF-8, and its
chat template is as simple as one can be.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL = ("<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
BOS, END = 256, 257
LAYERS, WIDTH = 2, 64
MERGES = (b"th", b"the", b"er", b"or", b"in", b"an", b" o", b" t", b" a", b"re", b"ord", b"order", b" order", b" the")
VOCAB = [bytes([value]) for value in range(256)] + [token.encode() for token in SPECIAL] + list(MERGES)

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Only system, user and assistant can speak.') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build(
    directory: Path,
    *,
    seed: int = 0,
    template: bool = True,
    shift: float = 0.0,
    weights: Iterable[Any] | None = None,
    merges: tuple[bytes, ...] = MERGES,
) -> Path:
    """Writes the model into `directory`, as the conversion of a real one would; returns `directory`. `shift` is added to all logits.

    With `weights` they are its matrices: the table of embeddings, those of each layer (query, key, value, output, gate, up, down), the head.
    """
    import openvino as ov

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = VOCAB[: BOS + len(SPECIAL)] + list(merges)
    given = None if weights is None else iter(weights)
    ov.save_model(
        _decoder(seed, shift, len(vocabulary), given), directory / "openvino_model.xml", compress_to_fp16=False
    )
    tokenizer, detokenizer = _tokenizers(vocabulary, merges)
    ov.save_model(tokenizer, directory / "openvino_tokenizer.xml", compress_to_fp16=False)
    ov.save_model(detokenizer, directory / "openvino_detokenizer.xml", compress_to_fp16=False)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 256,
        "vocab_size": len(vocabulary),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "bos_token_id": BOS,
        "eos_token_id": END,
    }
    tokens: dict[str, Any] = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|end|>"}
    if template:
        tokens["chat_template"] = TEMPLATE
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"bos_token_id": BOS, "eos_token_id": END}))
    (directory / "tokenizer_config.json").write_text(json.dumps(tokens))
    return directory


def _decoder(seed: int, shift: float, tokens: int, given: Iterator[Any] | None) -> Any:
    import openvino as ov
    from openvino import opset13 as op
    from openvino.op.util import Variable, VariableInfo

    layers, width, heads, head, inner = LAYERS, WIDTH, 4, WIDTH // 4, 2 * WIDTH
    random = np.random.default_rng(seed)

    def weight(*shape: int, scale: float | None = None) -> Any:
        if given is not None:
            matrix = np.asarray(next(given), np.float32)
            assert matrix.shape == shape
            return op.constant(matrix)
        return op.constant(random.normal(0, scale or shape[-1] ** -0.5, shape).astype(np.float32))

    def ints(*values: int) -> Any:
        return op.constant(np.array(values, np.int64))

    def linear(x: Any, rows: int, columns: int) -> Any:
        return op.matmul(x, weight(rows, columns), False, True)

    def norm(x: Any) -> Any:
        mean = op.reduce_mean(op.multiply(x, x), ints(-1), True)
        return op.divide(x, op.sqrt(op.add(mean, op.constant(np.float32(1e-5)))))

    def parameter(name: str, *shape: int, kind: Any = np.int64) -> Any:
        made = op.parameter(list(shape), kind)
        made.set_friendly_name(name)
        made.output(0).get_tensor().set_names({name})
        return made

    ids, mask, positions = (parameter(name, -1, -1) for name in ("input_ids", "attention_mask", "position_ids"))
    beam = parameter("beam_idx", -1, kind=np.int32)
    batch = op.gather(op.shape_of(ids), ints(0), ints(0))
    total = op.gather(op.shape_of(mask), op.constant(np.int64(1)), ints(0))

    table = weight(tokens, width, scale=1.0)
    x = op.gather(table, op.convert(ids, "i32"), op.constant(np.int32(0)))

    frequencies = op.constant((10000.0 ** (-np.arange(head // 2) / (head // 2))).astype(np.float32).reshape(1, 1, -1))
    angles = op.multiply(op.unsqueeze(op.convert(positions, "f32"), ints(-1)), frequencies)
    angles = op.unsqueeze(op.concat([angles, angles], -1), ints(1))
    cosine, sine = op.cos(angles), op.sin(angles)

    def rotate(x: Any) -> Any:
        halves = op.variadic_split(x, ints(-1), ints(head // 2, head // 2))
        minus = op.multiply(halves.output(1), op.constant(np.float32(-1)))
        return op.add(op.multiply(x, cosine), op.multiply(op.concat([minus, halves.output(0)], -1), sine))

    keys = op.unsqueeze(op.range(op.constant(np.int64(0)), total, op.constant(np.int64(1)), "i64"), ints(0, 1, 2))
    seen = op.less_equal(keys, op.unsqueeze(op.unsqueeze(positions, ints(1)), ints(-1)))
    attend = op.select(seen, op.constant(np.float32(0)), op.constant(np.float32(-np.inf)))

    sinks = []

    def remembered(new: Any, name: str) -> Any:
        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, heads, -1, head])
        info.data_type = ov.Type.f32
        info.variable_id = name
        variable = Variable(info)
        empty = op.broadcast(op.constant(np.float32(0)), op.concat([batch, ints(heads, 0, head)], 0))
        past = op.gather(op.read_value(empty, variable), beam, op.constant(np.int32(0)))
        joined = op.concat([past, new], 2)
        sinks.append(op.assign(joined, variable))
        return joined

    def split(x: Any) -> Any:
        return op.transpose(op.reshape(x, ints(0, 0, heads, head), True), ints(0, 2, 1, 3))

    for layer in range(layers):
        normed = norm(x)
        query, key, value = (split(linear(normed, width, width)) for _ in range(3))
        key = remembered(rotate(key), f"past_key_values.{layer}.keypresent.{layer}.key")
        value = remembered(value, f"past_key_values.{layer}.valuepresent.{layer}.value")
        attention = op.scaled_dot_product_attention(rotate(query), key, value, attend)
        mixed = op.reshape(op.transpose(attention, ints(0, 2, 1, 3)), ints(0, 0, width), True)
        x = op.add(x, linear(mixed, width, width))
        normed = norm(x)
        gate = op.swish(linear(normed, inner, width))
        x = op.add(x, linear(op.multiply(gate, linear(normed, inner, width)), width, inner))
    logits = op.matmul(norm(x), weight(tokens, width, scale=0.4), False, True)
    if shift:
        logits = op.add(logits, op.constant(np.float32(shift)))
    result = op.result(logits)
    logits.output(0).get_tensor().set_names({"logits"})
    return ov.Model([result], sinks, [ids, mask, positions, beam], "tiny")


def _tokenizers(vocabulary: list[bytes], merges: tuple[bytes, ...]) -> tuple[Any, Any]:
    from openvino import Type
    from openvino_tokenizers import tokenizer_pipeline as step
    from openvino_tokenizers.constants import ATTENTION_MASK_INPUT_NAME, TOKEN_IDS_INPUT_NAME
    from openvino_tokenizers.utils import change_inputs_type, change_outputs_type

    pipeline = step.TokenizerPipeline()
    pipeline.vocab = vocabulary
    pipeline.add_steps(step.SpecialTokensSplit.from_string_iter(SPECIAL))
    pipeline.add_steps(step.RegexSplitStep.byte_level_splitter())
    pairs = [_pair(token) for token in merges]
    pipeline.add_steps(
        step.BPETokenizationStep(vocabulary, pairs, added_tokens={t: BOS + i for i, t in enumerate(SPECIAL)})
    )
    bos = step.AddToken(token="<|bos|>")
    bos.token_id = BOS
    pipeline.add_steps(step.CombineSegmentsStep([bos, step.Sequence()]))
    padding = step.PaddingStep(pad_right=False)
    padding.token_id = END
    pipeline.add_steps(padding)
    skip = list(range(BOS, BOS + len(SPECIAL)))
    pipeline.add_steps(step.VocabDecoderStep(vocab=vocabulary, skip_tokens=skip))
    pipeline.add_steps(step.FuseStep())
    pipeline.add_steps(step.UTF8ValidateStep(mode=step.UTF8ReplaceMode.REPLACE))
    tokenizer = pipeline.get_tokenizer_ov_subgraph()
    detokenizer = pipeline.get_detokenizer_ov_subgraph()
    for output, name in zip(tokenizer.outputs, (TOKEN_IDS_INPUT_NAME, ATTENTION_MASK_INPUT_NAME), strict=False):
        output.tensor.add_names({name})
    change_outputs_type(tokenizer, Type.i64)
    change_inputs_type(detokenizer, Type.i64)
    for key, value in (("bos_token_id", BOS), ("eos_token_id", END), ("pad_token_id", END)):
        tokenizer.set_rt_info(value, key)
    return tokenizer, detokenizer


def _pair(token: bytes) -> tuple[bytes, bytes]:
    """The two shorter tokens that the merge of `token` joins."""
    known = set(VOCAB[:256]) | {other for other in MERGES if len(other) < len(token)}
    cut = max(at for at in range(1, len(token)) if token[:at] in known and token[at:] in known)
    return token[:cut], token[cut:]
