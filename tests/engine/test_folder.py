import json
from pathlib import Path

import pytest

from penstock.core.errors import BadRequest, Damaged, NotFound
from penstock.engine.folder import read_folder
from penstock.engine.template import ChatTemplate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "openvino_detokenizer.xml"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, name: str, **fields: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps(fields))


def test_what_the_files_say(folder: Path) -> None:
    write(
        folder, "config", max_position_embeddings=512, num_hidden_layers=6, num_attention_heads=4, hidden_size=256,
        bos_token_id=3, eos_token_id=1,
    )  # fmt: skip
    write(folder, "generation_config", eos_token_id=[2, 1], temperature=0.7, top_k=20)
    write(
        folder, "tokenizer_config", model_max_length=400, bos_token={"content": "<s>"}, chat_template="{{ messages }}"
    )
    model = read_folder(folder)
    assert model.context == 400
    assert model.stop_ids == (2, 1)
    assert model.bos_id == 3
    assert model.defaults == {"temperature": 0.7, "top_k": 20}
    assert model.template == "{{ messages }}"
    assert model.special == {"bos_token": "<s>"}
    assert model.block_bytes == 6 * 2 * 256 * 32 * 2
    assert model.kv_blocks(256) == (256 << 20) // model.block_bytes


def test_the_cache_holds_at_least_one_whole_context(folder: Path) -> None:
    write(
        folder, "config", max_position_embeddings=8192, num_hidden_layers=60, num_attention_heads=64, hidden_size=8192
    )
    assert read_folder(folder).kv_blocks(1) * 32 > 8192


def test_a_model_that_is_not_to_sample_is_greedy(folder: Path) -> None:
    write(folder, "generation_config", do_sample=False, temperature=0.7)
    assert read_folder(folder).defaults == {"temperature": 0.0}


def test_a_template_of_its_own_file_comes_first(folder: Path) -> None:
    write(folder, "tokenizer_config", chat_template=[{"name": "default", "template": "two"}])
    assert read_folder(folder).template == "two"
    (folder / "chat_template.jinja").write_text("one")
    assert read_folder(folder).template == "one"


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "openvino_tokenizer.xml").unlink()
    with pytest.raises(NotFound, match=r"openvino_tokenizer\.xml"):
        read_folder(folder)
    with pytest.raises(NotFound, match="no folder"):
        read_folder(tmp_path / "nowhere")


def test_a_damaged_file_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(Damaged, match=r"config\.json"):
        read_folder(folder)


def test_templates_are_rendered_as_hugging_face_does() -> None:
    template = ChatTemplate(
        "{% for m in messages %}\n{{ bos_token }}{{ m.role }}:{{ m.content | tojson }}{% endfor %}\n"
        "{% if add_generation_prompt %}>{% endif %}",
        {"bos_token": "<s>"},
    )
    messages = [{"role": "developer", "content": 'a"b'}, {"role": "user", "content": "ü"}]
    assert template.render(messages) == '<s>system:"a\\"b"<s>user:"ü">'


@pytest.mark.parametrize(
    "source",
    ["{{ raise_exception('users first') }}", "{{ messages[0].content.x.y }}", "{{ 1 / 0 }}", "{{ messages + 1 }}"],
)
def test_what_a_template_refuses_is_a_bad_request(source: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ChatTemplate(source, {}).render([{"role": "user", "content": "x"}])
    assert caught.value.param == "messages"


def test_a_template_gets_at_nothing_outside() -> None:
    with pytest.raises(BadRequest):
        ChatTemplate("{{ messages.__class__.__mro__ }}", {}).render([{"role": "user", "content": "x"}])


def test_a_broken_template_is_damage() -> None:
    with pytest.raises(Damaged):
        ChatTemplate("{% if %}", {})
