"""`WarmStart` with Lightning's own Trainer."""

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lightning")

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    LearningRateFinder,
)
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from small_trainings import Lit, Rows, data, is_warm, lightning_trainer, settings, write_old
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

import torch_warmstart as tws
from torch_warmstart.integrations.lightning import WarmStart

pytestmark = pytest.mark.filterwarnings(
    "ignore:::lightning", "ignore:.*LeafSpec.*", "ignore:.*isinstance.treespec.*"
)
PREFIX = "net."


@pytest.fixture
def old(tmp_path):
    return write_old(tmp_path / "old.pt", PREFIX)


def test_model_and_optimizer_are_warm_when_the_first_batch_comes(tmp_path, old):
    model, callback = Lit(), WarmStart(settings(old, PREFIX), optimizer=True)
    lightning_trainer(tmp_path, callback).fit(model, data())
    assert model.was_warm == model.had_warm_slots == [True]
    assert callback.report["net.table.weight"].rows.copied == 2
    assert not torch.equal(model.first[0]["head.weight"], model.net.head.weight)  # it has trained


def test_the_optimizer_stays_as_it_is_unless_it_is_asked_for(tmp_path, old):
    model = Lit()
    lightning_trainer(tmp_path, WarmStart(settings(old, PREFIX))).fit(model, data())
    assert (model.was_warm, model.had_warm_slots) == ([True], [False])


def test_a_run_that_resumes_is_not_warm_started_again(tmp_path, old, caplog):
    caplog.set_level(logging.INFO, "torch_warmstart")
    trainer = lightning_trainer(tmp_path, WarmStart(settings(old, PREFIX)))
    trainer.fit(Lit(), data())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]

    model, callback = Lit(), WarmStart(settings(old, PREFIX), optimizer=True)
    again = lightning_trainer(tmp_path, callback, max_epochs=2)
    again.fit(model, data(), ckpt_path=tmp_path / "run.ckpt")

    assert again.global_step == 8
    assert callback.report is None
    assert "resumes from a checkpoint" in caplog.text
    for name, value in model.first[0].items():
        assert torch.equal(value, saved[f"net.{name}"])


def test_a_second_fit_goes_on(tmp_path, old):
    model, callback = Lit(), WarmStart(settings(old, PREFIX))
    trainer = lightning_trainer(tmp_path, callback)
    trainer.fit(model, data())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, data())
    lightning_trainer(tmp_path, callback).fit(model, data())  # another trainer, the same model
    assert model.was_warm == [True, False, False]
    other = Lit()
    lightning_trainer(tmp_path, callback).fit(other, data())
    assert other.was_warm == [True]


class Tuned(Lit):
    """With what finders change, and the data by that."""

    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 1e-3, 2

    def train_dataloader(self):
        return DataLoader(Rows(), batch_size=self.batch_size)


@pytest.mark.parametrize(
    "finder",
    [
        lambda: LearningRateFinder(num_training_steps=4),
        lambda: BatchSizeFinder(max_trials=1, steps_per_trial=1),
    ],
    ids=["learning rate", "batch size"],
)
def test_a_finder_that_loads_what_it_began_with_is_no_run_that_resumes(tmp_path, old, finder):
    model, callback = Tuned(), WarmStart(settings(old, PREFIX), optimizer=True)
    trainer = lightning_trainer(tmp_path, callback)
    trainer.callbacks.insert(0, finder())  # Lightning puts them in front wherever they stand
    trainer.fit(model)
    assert model.was_warm == model.had_warm_slots == [False, True]  # the finder's own steps first
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    trainer.fit_loop.max_epochs = 2
    other = Tuned()
    trainer.fit(other, ckpt_path=tmp_path / "run.ckpt")
    assert other.was_warm[-1:] == [False]


class Validated(Lit):
    """Remembers what it had when it was validated."""

    def __init__(self):
        super().__init__()
        self.validated = []

    def validation_step(self, batch, _):
        self.validated.append(is_warm(self.net))

    def val_dataloader(self):
        return data()


@pytest.mark.parametrize("is_first", [True, False])
def test_averages_that_have_not_begun_are_of_the_warm_model(tmp_path, old, is_first):
    averages = EMAWeightAveraging(update_starting_at_step=1000)
    model, start = Validated(), WarmStart(settings(old, PREFIX))
    trainer = lightning_trainer(tmp_path, start)
    trainer.callbacks.insert(0 if is_first else len(trainer.callbacks), averages)
    trainer.fit(model, data())
    assert model.validated == [True] * 6  # two of the sanity check
    assert is_warm(model.net)  # no step has come into what is put there at the end


def test_averages_of_a_run_that_resumes_stay(tmp_path, old):
    def trainer(start, **more):
        made = lightning_trainer(tmp_path, start, **more)
        made.callbacks.append(EMAWeightAveraging(decay=0.5))
        return made

    first = trainer(WarmStart(settings(old, PREFIX)))
    first.fit(Lit(), data())
    first.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)

    model, start = Lit(), WarmStart(settings(old, PREFIX))
    trainer(start, max_epochs=2).fit(model, data(), ckpt_path=tmp_path / "run.ckpt")
    assert start.report is None
    for name, value in model.first[0].items():
        assert torch.equal(value, saved["current_model_state"][f"net.{name}"])


def test_averages_of_something_else_are_left(tmp_path, old):
    class Own(Callback):
        def setup(self, trainer, pl_module, stage):
            self.of_the_net = AveragedModel(pl_module.net)
            self.begun = AveragedModel(pl_module)
            self.begun.update_parameters(pl_module)
            self.before = copy.deepcopy((self.of_the_net, self.begun))

    own = Own()
    trainer = lightning_trainer(tmp_path, WarmStart(settings(old, PREFIX)))
    trainer.callbacks.append(own)
    trainer.fit(Lit(), data())
    for now, then in zip((own.of_the_net, own.begun), own.before, strict=True):
        pairs = zip(now.state_dict().values(), then.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_what_cannot_be_is_an_error_of_fit_and_changes_nothing(tmp_path, old):
    model = Lit()
    before = copy.deepcopy(model.net.state_dict())
    with pytest.raises(tws.PlanError, match="table"):
        lightning_trainer(tmp_path, WarmStart(old)).fit(model, data())
    assert all(torch.equal(value, before[n]) for n, value in model.net.state_dict().items())


def test_validation_alone_starts_nothing(tmp_path, old):
    callback = WarmStart(settings(old, PREFIX))
    lightning_trainer(tmp_path, callback).validate(Validated(), data(), verbose=False)
    assert callback.report is None


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
def test_before_parameters_are_flattened_the_model_is_filled_in_setup(old, kind):
    # These strategies want GPUs: only what the callback does for them is looked at.
    class Flattening(kind):
        def __init__(self):
            pass

    trainer = SimpleNamespace(strategy=Flattening(), ckpt_path=None, global_step=0, callbacks=[])
    model, callback = Lit(), WarmStart(settings(old, PREFIX))
    callback.setup(trainer, model, "fit")
    report = callback.report
    assert report["net.head.weight"].state == "copied"
    callback.on_fit_start(trainer, model)
    assert callback.report is report
    with pytest.raises(tws.SettingsError, match="flat parameters"):
        WarmStart(old, optimizer=True).setup(trainer, model, "fit")
