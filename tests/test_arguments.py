"""Arguments of another kind than a function takes: our error, that names the argument."""

import pytest
import torch

import torch_warmstart as tws

MODEL = torch.nn.Linear(2, 2)
STATE = MODEL.state_dict()
ONES = torch.ones(2, 2)

CALLS = {
    "apply_plan: plan": tws.apply_plan,
    "convert: path": lambda bad: tws.convert(STATE, bad),
    "device": lambda bad: tws.generate_vocab_remapping(["a"], ["a"], device=bad),
    "A tensor's key": lambda bad: tws.load_checkpoint(STATE).get_tensor(bad),
    "A tensor's key must": lambda bad: tws.load_checkpoint(STATE).spec(bad),
    "A tensor's key must be": lambda bad: tws.load_checkpoint(STATE).verify(bad),
    "gather_rows: out": lambda bad: tws.gather_rows(ONES, torch.tensor([0]), bad),
    "latest_checkpoint: directory": tws.latest_checkpoint,
    "head: count": lambda bad: tws.Vocabulary.load(["a"]).head(bad),
    "load_and_remap_matrix: old_tensor_name": lambda bad: tws.load_and_remap_matrix(
        STATE, bad, [0], [0], [], 1, 1
    ),
    "load_rules: path": tws.load_rules,
    "load_settings: path": tws.load_settings,
    "load_variable: key": lambda bad: tws.load_variable(STATE, bad),
    "mirror_dir": lambda bad: tws.load_checkpoint(STATE, mirror_dir=bad),
    "new_vocab_offset": lambda bad: tws.generate_vocab_remapping(
        ["a"], ["a"], new_vocab_offset=bad
    ),
    "padded_to: count": lambda bad: tws.Vocabulary.load(["a"]).padded_to(bad),
    "progress": lambda bad: tws.warm_start(MODEL, STATE, progress=bad),
    "progress is True": lambda bad: tws.diff(STATE, STATE, progress=bad),
    "progress is True, False": lambda bad: tws.update_vocabulary(["a"], ["b"], progress=bad),
    "save_vocabularies: checkpoint": lambda bad: tws.save_vocabularies(bad, {"weight": ["a", "b"]}),
    "to_html: path": lambda bad: tws.diff(STATE, STATE).to_html(bad),
    "verify_port: layers": lambda bad: tws.verify_port(MODEL, ONES, ONES, layers=bad),
    "verify_port: model": lambda bad: tws.verify_port(bad, ONES, ONES),
    "verify_port: rtol": lambda bad: tws.verify_port(MODEL, ONES, ONES, rtol=[bad]),
    "generator": lambda bad: tws.warmstart_embedding_matrix(["a"], ["a"], ONES, generator=bad),
    "The model": lambda bad: tws.warm_start(bad, STATE),
}


@pytest.mark.parametrize("bad", [b"x", 3.5, [1], ONES], ids=["bytes", "float", "list", "tensor"])
@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_another_kind_is_told_by_its_name(name, bad):
    if name == "gather_rows: out" and bad is ONES:
        bad = "a text"
    with pytest.raises(tws.SettingsError, match=name):
        CALLS[name](bad)


@pytest.mark.parametrize("bad", [3.5, [1], None], ids=["float", "list", "none"])
def test_what_is_no_key_is_not_in_a_checkpoint(bad):
    with tws.load_checkpoint(STATE) as checkpoint:
        assert bad not in checkpoint
        assert checkpoint.get(bad) is None
