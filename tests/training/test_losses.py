"""The losses against their definitions, the weights of classes, and losses of users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator

from tests.distributed.launch import run_worker
from tests.runs import Run, train_here
from tests.training.test_step import IMAGES, TARGETS, Net, weights
from trainer.config.schema import TrainConfig
from trainer.data.sampling import microbatch_sizes
from trainer.training import losses
from trainer.training.loss import TrainingLoss
from trainer.training.step import TrainStep

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -2.0], [30.0, -40.0, 5.0], [0.0, 0.0, 0.0]])
CLASSES = torch.tensor([0, 2, 1, 1])
ONE_HOT = F.one_hot(CLASSES, 3).double()


def compute(config: TrainConfig, targets: torch.Tensor = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses of LOGITS, and the gradient of their sum."""
    logits = LOGITS.clone().requires_grad_()
    found = losses.build(config)(logits, targets)
    found.sum().backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
    return found.detach().double().numpy(), logits.grad.double().numpy()


def expected(kind: str, **arguments: float) -> torch.Tensor:
    """The definitions in double precision, with one class to an image."""
    logits = LOGITS.double()
    p, each = logits.softmax(1), logits.sigmoid()
    match kind:
        case "focal":
            of_class = p[range(4), CLASSES]
            return -((1 - of_class) ** arguments["gamma"]) * of_class.log()
        case "bce":
            return F.binary_cross_entropy(each, ONE_HOT, reduction="none").mean(1)
    shifted = (each - arguments["margin"]).clamp(min=0)
    positive = (1 - each) ** arguments["gamma_positive"] * F.logsigmoid(logits)
    negative = shifted ** arguments["gamma_negative"] * (1 - shifted).log()
    return -(ONE_HOT * positive + (1 - ONE_HOT) * negative).mean(1)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("focal", {"gamma": 2.0}),
        ("focal", {"gamma": 0.5}),
        ("bce", {}),
        ("asymmetric", {"gamma_positive": 0.0, "gamma_negative": 4.0, "margin": 0.05}),
        ("asymmetric", {"gamma_positive": 1.0, "gamma_negative": 0.5, "margin": 0.2}),
    ],
)
def test_a_loss_is_its_definition(kind: str, arguments: dict[str, float]) -> None:
    found, _ = compute(TrainConfig(loss=kind, loss_args=arguments))
    np.testing.assert_allclose(found, expected(kind, **arguments), rtol=1e-4, atol=1e-6)
    shares, _ = compute(TrainConfig(loss=kind, loss_args=arguments), ONE_HOT.float())
    np.testing.assert_array_equal(found, shares)


def test_they_meet_where_they_are_equal_and_smoothing_is_linear() -> None:
    cross_entropy, slope = compute(TrainConfig(label_smoothing=0.1))
    focal, other = compute(TrainConfig(loss="focal", loss_args={"gamma": 0}, label_smoothing=0.1))
    np.testing.assert_allclose(focal, cross_entropy, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other, slope, rtol=1e-4, atol=1e-6)
    plain = {"gamma_negative": 0, "margin": 0}
    bce, slope = compute(TrainConfig(loss="bce", label_smoothing=0.1))
    asymmetric, other = compute(
        TrainConfig(loss="asymmetric", loss_args=plain, label_smoothing=0.1)
    )
    np.testing.assert_allclose(asymmetric, bce, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other, slope, rtol=1e-4, atol=1e-6)


def test_an_adjustment_is_of_the_labels_and_smoothing_of_the_networks_own_answers() -> None:
    shares = torch.tensor([0.7, 0.25, 0.05])
    loss = TrainingLoss(TrainConfig(label_smoothing=0.1), shares.log())
    of_labels = F.cross_entropy(LOGITS + shares.log(), CLASSES, reduction="none")
    evenly = -LOGITS.log_softmax(1).mean(1)
    found = loss.of_samples(LOGITS, CLASSES, None)
    torch.testing.assert_close(found, 0.9 * of_labels + 0.1 * evenly)
    torch.testing.assert_close(loss.sum(LOGITS, CLASSES, None), found.sum())


@pytest.mark.parametrize("microbatches", [1, 3, 5])
def test_the_gradient_is_that_of_the_weighted_mean_of_the_whole_step(microbatches: int) -> None:
    """In pieces of uneven sizes and uneven weights, a mean of means would be another."""
    of_classes = torch.tensor([0.2, 1.0, 5.0])
    whole, pieces = Net(), Net()
    reference = F.cross_entropy(whole(IMAGES), TARGETS, weight=of_classes)
    plain = F.cross_entropy(whole(IMAGES), TARGETS).item()
    reference.backward()
    with torch.no_grad():
        for parameter in whole.parameters():
            if parameter.grad is not None:
                parameter -= 0.5 * parameter.grad
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare_optimizer(torch.optim.SGD(pieces.parameters(), 0.5))
    step = TrainStep(accelerator, pieces, optimizer, TrainConfig(microbatches=microbatches), seed=0)
    pieces.train()
    shares = of_classes[TARGETS] / of_classes[TARGETS].sum()
    result = step(1, IMAGES, TARGETS, microbatch_sizes(22, microbatches), shares)
    torch.testing.assert_close(weights(pieces), weights(whole))
    assert float(result.loss) == pytest.approx(plain, rel=1e-5)


OWN = "examples/own_loss.py:poly"


def test_the_same_bits_on_any_number_of_processes(tmp_path: Path) -> None:
    """With accumulation, and a last step of 5 samples in pieces of 2 and 1."""
    common = {
        "train.epochs": 1, "train.batch_size": 99, "data.train_size": 500, "train.microbatches": 4,
        "train.class_weights": [1, 2, 0.5, 0, 7, 1, 3, 1, 1, 9],
    }  # fmt: skip
    balanced = {"data.sampling": "balanced", "train.class_weights": None}
    runs = [
        common | {"data.mixup": 0.3, "data.cutmix": 1.0},
        common | {"train.class_weights": "auto", "train.loss": "focal"},
        common | {"train.loss": OWN, "train.logit_adjustment": 1.0},
        common | balanced | {"train.loss": "asymmetric"},
        common | {"train.loss": "bce", "train.sam_rho": 0.05},
        common,
    ]
    one, two = (
        run_worker(n, tmp_path / f"out-{n}", name="train", runs=runs, folder=str(tmp_path))
        for n in (1, 2)
    )
    assert one == two
    assert len({outcome["weights"] for outcome in one}) == len(runs)


HEAD = "import torch\nfrom torch.nn import functional as F\nseen = []\n"
BODY = "def mine(logits, targets, scale=1.0):\n    "


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return F.cross_entropy(logits, targets)", "must return the loss of each sample"),
        ("return logits.log_softmax(1)", "shape (10, 10)"),
        ("return 1.0", "returns a float"),
        ("return (logits[:, 0] > 0).int()", "shape (10,) and type torch.int32"),
        ("return targets", "type torch.int64"),
        ("return (logits.softmax(1)[:, 0] - 2).log()", "returns nan"),
        ("return (logits[:, 0] * 0).sqrt() + logits[:, 1]", "a gradient that is not finite"),
        ("return torch.zeros(len(logits))", "does not depend on the logits"),
        ("return logits.nothing()", "mine.py, line 5"),
        ("seen.append(1); return logits[:, 0] * len(seen)", "the second time"),
        ("return F.cross_entropy(logits, targets, reduction='none').squeeze()", "of shape ()"),
        ("return scale * F.cross_entropy(logits, targets, reduction='none')", None),
        ("return torch.where(targets == 9, torch.nan, logits[:, 0])", "returns nan"),
    ],
)
def test_a_loss_that_is_none_is_refused_before_the_first_step(
    code: str, message: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}{BODY}{code}\n")
    more = ["--train.loss", f"{file}:mine", "--train.epochs", "1", "--data.train_size", "200"]
    if message is None:
        assert train_here(tmp_path / "run", *more, "--train.loss_args", '{"scale": 2}') == 0
        return
    assert train_here(tmp_path / "run", *more) == 2
    error = capsys.readouterr().err
    assert "train.loss: mine" in error and message in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train.class_weights", "[1, 2]"], "train.class_weights: 2 weights for 10 classes"),
        (["--train.class_weights", "[1, -2]"], "train.class_weights: must be numbers of 0 or more"),
        (["--train.class_weights", "[0, 0]"], "train.class_weights: must be numbers of 0 or more"),
        (["--train.loss", "focus"], "train.loss: there is no loss 'focus'; did you mean focal?"),
        (["--train.loss", "bce", "--train.logit_adjustment", "1"], "train.logit_adjustment: must"),
        (
            ["--train.loss", "focal", "--train.loss_args", '{"gama": 1}'],
            "train.loss_args: focal takes no 'gama'; did you mean gamma? it takes gamma",
        ),
        (["--train.loss_args", '{"gamma": 1}'], "train.loss_args: cross_entropy takes no 'gamma'"),
        (
            ["--data.sampling", "balanced", "--train.logit_adjustment", "1"],
            "train.logit_adjustment: must be 0 where data.sampling is balanced",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "run", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 - step / total_steps", None),
        ("return -1", "schedule.name: mine gives -1 for step 0 of"),
        ("return float('nan') if step > 15 else 1", "schedule.name: mine gives nan for step"),
        ("return 'high'", "schedule.name: mine gives 'high'"),
        ("seen.append(1); return len(seen)", "schedule.name: mine gives another factor"),
    ],
)
def test_a_schedule_of_ones_own(
    body: str, message: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"seen = []\ndef mine(step, total_steps, steps_per_epoch):\n    {body}\n")
    more = ["--schedule.name", f"{file}:mine", "--schedule.warmup_epochs", "1"]
    more += ["--data.train_size", "400", "--train.epochs", "4"]
    code = train_here(tmp_path / "run", *more)
    if message is not None:
        assert code == 2
        assert message in capsys.readouterr().err
        return
    assert code == 0
    rates = [record["lr"] for record in Run(tmp_path / "run", 0).metrics("step")]
    assert rates == pytest.approx(
        [0.01 * n / 7 for n in range(1, 7)] + [0.01 * (1 - n / 18) for n in range(18)]
    )
