"""Find the file that model.weights names, and what is known of it, before the data are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace as with_values
from pathlib import Path
from typing import Any

from models import timm_models
from trainer.base.errors import UserError
from trainer.base.files import sha256_of
from trainer.base.strict_json import check_type, error_text, parse_json, read_json
from trainer.base.tensor_files import read_metadata
from trainer.config.schema import ModelConfig, RunConfig, replace
from trainer.network import hub, packaged_weights, preprocessing, torch_files
from trainer.network.hub import NotAtHandError
from trainer.network.pretrained import Preprocessing, PretrainedWeights

PRETRAINED = "pretrained"
_TIMM_HUB_PREFIXES = ("timm:hf-hub:", "timm:hf_hub:")


def find(model: ModelConfig, *, download: bool = True) -> PretrainedWeights | None:
    """Find the weights to start from; None where model.weights is null.

    On each machine one process calls it first, with `download`, and the others afterwards.

    Args:
        download: whether to get from the hub what this machine does not have.

    Raises:
        NotAtHandError: they are not on this machine, or cannot be downloaded now.
        UserError: there are no such weights, or they are others than model.weights_sha256 says.
    """
    asked = model.weights
    if asked is None:
        return None
    if asked == PRETRAINED:
        found = _find_pretrained(model.name, download=download)
    elif asked.startswith(hub.PREFIX):
        found = _from_hub(asked, download=download)
    else:
        found = _from_path(Path(asked).expanduser())
    expected = model.weights_sha256
    if expected not in (None, found.sha256):
        raise UserError(
            f"model.weights: {found.source} has the SHA-256 {found.sha256}, but "
            f"model.weights_sha256 is {expected}: the file is not the one that this configuration "
            f"means; bring that back, or start another run, with model.weights_sha256: null"
        )
    return found


def may_be_downloaded(model: ModelConfig) -> bool:
    """Return whether the weights are not a file of the user's."""
    asked = model.weights
    return asked is not None and (asked == PRETRAINED or asked.startswith(hub.PREFIX))


def pin(config: RunConfig, found: PretrainedWeights | None) -> RunConfig:
    """Return a configuration that means these weights wherever it is read."""
    if found is None:
        return config
    return replace(config, {"model.weights": found.source, "model.weights_sha256": found.sha256})


def _find_pretrained(name: str, *, download: bool) -> PretrainedWeights:
    """Find the weights that the network's own library has for it.

    Raises:
        UserError: there are none.
    """
    for prefix in _TIMM_HUB_PREFIXES:
        if name.startswith(prefix):
            return _from_hub(hub.PREFIX + name.removeprefix(prefix), download=download)
    if name.startswith(timm_models.PREFIX):
        return _of_timm(name, download=download)
    return packaged_weights.resolve(name)


def _of_timm(name: str, *, download: bool) -> PretrainedWeights:
    try:
        settings = timm_models.pretrained_settings(name)
    except ValueError as error:
        raise UserError(f"model.name: {error}") from error
    repository = settings.get("hf_hub_id")
    if repository is None:
        address = settings.get("url")
        advice = (
            f"timm has them at {address}: download them, and convert them once by python -m "
            f"trainer convert-weights"
            if address
            else "timm has none for it; timm.list_pretrained() lists the networks that have some"
        )
        raise UserError(f"model.weights: {PRETRAINED}: {name}: {advice}")
    file = settings.get("hf_hub_filename") or hub.WEIGHTS
    found = _from_hub(
        f"{hub.PREFIX}{repository}",
        download=download,
        file=Path(file).with_suffix(".safetensors").name,
    )
    return with_values(
        found,
        source=PRETRAINED,
        description=f"{name}, from {found.source}",
        preprocessing=preprocessing.of_timm(settings, f"{name}: its settings in timm"),
    )


def _from_hub(name: str, *, download: bool, file: str = hub.WEIGHTS) -> PretrainedWeights:
    snapshot, weights = hub.find(name, download=download, file=file)
    return _described(
        weights,
        source=snapshot.name,
        config=snapshot.get("config.json"),
        find_preprocessor=lambda: snapshot.get("preprocessor_config.json"),
    )


def _from_path(path: Path) -> PretrainedWeights:
    """Find weights in a file, a finished run's folder, or one as the hub has it."""
    absolute = path.absolute()
    if not path.exists():
        raise NotAtHandError(f"model.weights: {path}: No such file or folder")
    if not path.is_dir() and not path.is_file():
        raise UserError(f"model.weights: {path}: is no regular file")
    if not path.is_dir():
        return _described(path, source=str(absolute))
    file = path / hub.WEIGHTS
    if not file.exists() and (path / "config.yaml").exists():
        raise UserError(
            f"model.weights: {path}: has no {hub.WEIGHTS}, its run is not finished; let it come to "
            f"its end (the same command goes on)"
        )
    if not file.exists():
        raise UserError(
            f"model.weights: {path}: is neither the folder of a finished run nor one of the hub's, "
            f"there is no {hub.WEIGHTS} in it"
        )
    config, preprocessor = path / "config.json", path / "preprocessor_config.json"
    return _described(
        file,
        source=str(absolute),
        config=config if config.exists() else None,
        find_preprocessor=lambda: preprocessor if preprocessor.exists() else None,
    )


def _described(
    weights: Path,
    *,
    source: str,
    config: Path | None = None,
    find_preprocessor: Callable[[], Path | None] = lambda: None,
) -> PretrainedWeights:
    """Return a file of weights with what its metadata, or the files beside it, say of it."""
    try:
        if advice := torch_files.how_to_convert(weights):
            raise UserError(f"{weights}: {advice}")
        sha256 = sha256_of(weights)
        found = PretrainedWeights(source, source, weights.resolve(), sha256)
        text = read_metadata(found.file).get("model")
        if text is not None:
            return _with_run(found, parse_json(text, weights), weights)
        if config is None:
            return found
        settings = read_json(config)
        return with_values(
            found,
            class_names=_class_names(settings, config),
            preprocessing=_preprocessing_of_hub(settings, config, find_preprocessor),
        )
    except (UserError, OSError) as error:
        if isinstance(error, NotAtHandError):
            raise
        text = str(error) if isinstance(error, UserError) else f"{weights}: {error_text(error)}"
        raise UserError(f"model.weights: {text}") from error


def _with_run(found: PretrainedWeights, settings: Any, file: Path) -> PretrainedWeights:
    check_type(settings, dict[str, Any], f"{file}: model")
    names = settings.get("class_names")
    check_type(names, list[str] | None, f"{file}: model.class_names")
    return with_values(
        found,
        class_names=None if names is None else tuple(names),
        preprocessing=preprocessing.of_run(settings, file),
    )


def _preprocessing_of_hub(
    settings: Mapping[str, Any], config: Path, find_preprocessor: Callable[[], Path | None]
) -> Preprocessing:
    if isinstance(of_timm := settings.get("pretrained_cfg"), dict):
        return preprocessing.of_timm(of_timm, f"{config}: pretrained_cfg")
    if (path := find_preprocessor()) is None:
        return Preprocessing()
    return preprocessing.of_transformers(read_json(path), str(path))


def _class_names(settings: Mapping[str, Any], config: Path) -> tuple[str, ...] | None:
    """Return the names of the classes that config.json has, as timm or transformers writes it."""
    of_timm = settings.get("pretrained_cfg")
    inner = of_timm if isinstance(of_timm, dict) else {}
    names = settings.get("label_names", inner.get("label_names"))
    if names is None and (by_number := settings.get("id2label")) is not None:
        check_type(by_number, dict[str, str], f"{config}: id2label")
        names = [by_number.get(str(number)) for number in range(len(by_number))]
    check_type(names, list[str] | None, f"{config}: the names of its classes")
    return None if names is None else tuple(names)
