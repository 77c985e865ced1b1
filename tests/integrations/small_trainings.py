"""What the tests of trainers train: one table and one layer, through Lightning or transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PretrainedConfig, PreTrainedModel, TrainingArguments
from transformers import Trainer as HuggingFaceTrainer

import torch_warmstart as tws

OLD, NEW = ["a", "b", "c"], ["c", "new", "a", "other"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(len(NEW), 2)
        self.head = nn.Linear(2, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids)).squeeze(-1)


class Rows(Dataset):
    """Ids and targets, as mappings, which both trainers take."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        return {"ids": torch.tensor(at % len(NEW)), "labels": torch.tensor(float(at))}


def old_state(prefix: str = "") -> dict[str, torch.Tensor]:
    return {
        f"{prefix}table.weight": torch.arange(6.0).reshape(3, 2) + 10,
        f"{prefix}head.weight": torch.tensor([[5.0, 7.0]]),
        f"{prefix}head.bias": torch.tensor([3.0]),
    }


def write_old(path: Path, prefix: str = "") -> Path:
    """A training checkpoint: the state, and that of an Adam that took 7 steps."""
    state = old_state(prefix)
    slots = {
        number: {"step": torch.tensor(7.0), "exp_avg": value * 2, "exp_avg_sq": value * 3}
        for number, value in enumerate(state.values())
    }
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    group |= {"amsgrad": False, "maximize": False, "params": list(slots)}
    torch.save({"model": state, "optimizer": {"state": slots, "param_groups": [group]}}, path)
    return path


def settings(path: Path, prefix: str = "") -> tws.WarmStartSettings:
    info = tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=nn.init.normal_)
    return tws.WarmStartSettings(path, var_name_to_vocab_info={f"{prefix}table.weight": info})


def is_warm(net: Net) -> bool:
    """Whether the rows of "c" and "a" and the layer are the old ones, to the bit."""
    old = old_state()
    return (
        torch.equal(net.table.weight[[0, 2]], old["table.weight"][[2, 0]])
        and torch.equal(net.head.weight, old["head.weight"])
        and torch.equal(net.head.bias, old["head.bias"])
    )


def has_warm_slots(optimizer: torch.optim.Optimizer, net: Net) -> bool:
    old, state = old_state(), optimizer.state
    table, head = state[net.table.weight], state[net.head.weight]
    return (
        torch.equal(table["exp_avg"][[0, 2]], old["table.weight"][[2, 0]] * 2)
        and not table["exp_avg"][[1, 3]].any()
        and torch.equal(head["exp_avg_sq"], old["head.weight"] * 3)
        and {float(slots["step"]) for slots in state.values()} == {7.0}
    )


# -- Lightning -------------------------------------------------------------------------------------


class Lit(LightningModule):
    """Remembers, for each fit, what it had when the first batch came."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.first: list[dict[str, torch.Tensor]] = []
        self.was_warm: list[bool] = []
        self.had_warm_slots: list[bool] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), lr=1e-3)

    def on_train_start(self) -> None:
        self.first.append({name: v.clone() for name, v in self.net.state_dict().items()})
        self.was_warm.append(is_warm(self.net))
        optimizer = self.trainer.optimizers[0]
        self.had_warm_slots.append(bool(optimizer.state) and has_warm_slots(optimizer, self.net))

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        return (self.net(batch["ids"]) - batch["labels"]).square().mean()


def lightning_trainer(folder: Path, callback: Any, **more: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    common: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, **quiet, **more}
    return Trainer(default_root_dir=folder, callbacks=[callback], **common)


def data() -> DataLoader:
    return DataLoader(Rows(), batch_size=2)


# -- transformers ----------------------------------------------------------------------------------


class SmallModel(PreTrainedModel):
    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.net = Net()
        self.post_init()

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.net(ids) - labels).square().mean()}


def small_model() -> SmallModel:
    return SmallModel(PretrainedConfig())


def huggingface_trainer(folder: Path, model: Any, callbacks: list[Any], **more: Any) -> Any:
    settings = {"per_device_train_batch_size": 2, "max_steps": 2, "save_steps": 1, **more}
    args = TrainingArguments(
        str(folder), use_cpu=True, report_to=[], disable_tqdm=True, optim="adamw_torch", **settings
    )
    return HuggingFaceTrainer(model, args, train_dataset=Rows(), callbacks=callbacks)
