"""Put a finished run on the Hugging Face hub, with its model card.

One commit has README.md, model.safetensors, results.json, receipt.json and the recipe, config.yaml
without the keys that only say where things are on this machine. No picture and no report is sent,
and no folder's name: a receipt that has one, as of a plug-in with an absolute path, is left out.
`--model.weights hf:OWNER/NAME` then starts another run from it. The token is that of
huggingface_hub: `hf auth login`, or HF_TOKEN.

example: python -m trainer push runs/photos someone/clothes --private
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.base.errors import UserError, first_line
from trainer.base.files import to_json
from trainer.base.strict_json import check_type
from trainer.base.terminal import print_report
from trainer.commands.options import add_json_option
from trainer.config import stored_config
from trainer.config.run_status import describe_unfinished, read_status
from trainer.config.same_run import keys_of_run
from trainer.config.schema import nest
from trainer.config.weights_rules import HUB_NAME, REPOSITORY

FILES = ("README.md", "model.safetensors", "results.json", "receipt.json")
CARD, WEIGHTS, RESULTS, RECEIPT = FILES
SIGNATURE = "receipt.json.sig"
RECIPE = "config.yaml"
_SOURCES = (("model", "weights"), ("train", "teacher"))
"""the keys that name what a run began with or learnt from, which may be a file of this machine"""
_REFUSED = {
    401: "the hub does not know the token; log in (hf auth login), or set HF_TOKEN",
    403: "the token may not write there; it needs the permission to write, and OWNER to be you "
    "or an organisation of yours",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument("repository", metavar="OWNER/NAME", help="made if there is none")
    parser.add_argument(
        "--private", action="store_true", help="make a new repository a private one"
    )
    parser.add_argument(
        "--message",
        default="Add a model",
        metavar="TEXT",
        help="of the commit; default: %(default)s",
    )
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Send the files, and say where they are.

    Raises:
        UserError: the run is not finished, the name is not one, or the hub refuses.
    """
    if not re.fullmatch(REPOSITORY, arguments.repository):
        raise UserError(f"OWNER/NAME: {arguments.repository!r} is not a repository's name")
    if not arguments.message.strip():
        raise UserError("--message: is empty; a commit needs one")
    files = collect(arguments.run)
    commit, url = _send(arguments.repository, files, arguments.message, arguments.private)
    left_out = [name for name in FILES if name not in files]
    found = {
        "repository": arguments.repository,
        "commit": commit,
        "url": url,
        "files": [*files],
        "left_out": left_out,
    }
    lines = [
        *(f"{name:<18} {len(content):>12,} bytes" for name, content in files.items()),
        *(f"{name:<18} left out, as it names a folder of this machine" for name in left_out),
        f"pushed  {url}",
        f"use     --model.weights hf:{arguments.repository}@{commit}",
    ]
    print_report(found, lines, as_json=arguments.json)


def collect(folder: Path) -> dict[str, bytes]:
    """Return the files that a repository gets, by name.

    Raises:
        UserError: there is no finished run, or a file is missing.
    """
    config = stored_config.read_folder(folder)
    status = read_status(folder)
    if status.state != "finished":
        raise UserError(describe_unfinished(folder, status))
    files = {}
    for name in FILES:
        try:
            files[name] = (folder / name).read_bytes()
        except FileNotFoundError as error:
            missing = f"{folder}: there is no {name} in it"
            help_ = f"; python -m trainer report {folder} writes it" * (name == "README.md")
            raise UserError(missing + help_) from error
    if (folder / SIGNATURE).exists():
        files[SIGNATURE] = (folder / SIGNATURE).read_bytes()
    files[RESULTS] = _results_without_folders(folder)
    values = keys_of_run(config)
    recipe = nest(values)
    for section, key in _SOURCES:
        recipe[section][key] = _without_folder(recipe[section][key])
    files[RECIPE] = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode()
    del values["data.groups"]  # a pattern
    if places := [text for text in _texts(values) if _is_place(text)]:
        _hide(files, lambda text: _shorten(text, places))
    return files


def _is_place(text: str) -> bool:
    """Tell whether a value is an absolute path, as that of a plug-in's file may be."""
    return bool(Path(text).name) and (Path(text).is_absolute() or text.startswith("~/"))


def _texts(value: Any) -> Iterator[str]:
    """Return the texts in a value as JSON has it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _shorten(text: str, places: list[str]) -> str:
    """Return a text in which paths have lost their folders."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, Path(place).name)
    return text


def _hide(files: dict[str, bytes], shorten: Callable[[str], str]) -> None:
    """Take folders of this machine out of files; leave out a receipt that has one.

    A receipt proves itself by its digest, so it cannot be changed.
    """
    files[CARD] = shorten(files[CARD].decode()).encode()
    recipe = _map_texts(yaml.safe_load(files[RECIPE]), shorten)
    files[RECIPE] = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode()
    files[RESULTS] = to_json(_map_texts(json.loads(files[RESULTS]), shorten)).encode()
    files[WEIGHTS] = _with_metadata(files[WEIGHTS], shorten)
    if any(shorten(text) != text for text in _texts(json.loads(files[RECEIPT]))):
        del files[RECEIPT]
        files.pop(SIGNATURE, None)


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value as JSON has it with other texts."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(inner, change) for inner in value]
    if isinstance(value, Mapping):
        return {key: _map_texts(inner, change) for key, inner in value.items()}
    return value


def _with_metadata(content: bytes, change: Callable[[str], str]) -> bytes:
    """Return a safetensors file with other texts in its metadata, each of them JSON.

    It begins with the length of its head, then the head, JSON padded to a multiple of 8 bytes:
    https://huggingface.co/docs/safetensors#format.
    """
    begin, end = 8, 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[begin:end])
    head["__metadata__"] = {
        key: json.dumps(_map_texts(json.loads(text), change))
        for key, text in head.get("__metadata__", {}).items()
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def _results_without_folders(folder: Path) -> bytes:
    """Return results.json, whose files have lost their folders on this machine."""
    from trainer.run.run_folder import read_results

    results = read_results(folder)
    for section, key in _SOURCES:
        part: Any = results.get(section)
        check_type(part, dict[str, Any], f"{folder / RESULTS}: {section}")
        if named := part.get(key):
            check_type(named, dict[str, Any], f"{folder / RESULTS}: {section}.{key}")
            named["source"] = _without_folder(named.get("source"))
    return to_json(results).encode()


def _without_folder(source: str | None) -> str | None:
    """Return the name of a file or a folder alone; of a repository everything."""
    is_file = source is not None and not re.fullmatch(HUB_NAME, source)
    return Path(source).name if source is not None and is_file else source


def _send(repository: str, files: dict[str, bytes], message: str, private: bool) -> tuple[str, str]:
    """Commit the files; return the commit and where it is."""
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    from trainer.network.hub import request_error

    # It tells of each attempt, beside the one message.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

    api = HfApi()
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in files.items()
    ]
    try:
        made = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UserError(
                f"{repository}: was not pushed: it is there already and everybody can see it, but "
                f"--private makes only a new one private; change it on its page, or leave "
                f"--private out"
            )
        info = api.create_commit(repository, operations, commit_message=message)
    except errors.HfHubHTTPError as error:
        why = _REFUSED.get(error.response.status_code, first_line(error))
        raise UserError(f"{repository}: was not pushed: {why}") from error
    except (request_error(), OSError, ValueError) as error:
        raise UserError(f"{repository}: was not pushed: {first_line(error)}") from error
    except KeyError as error:
        why = f"the hub's answer has no {error}"
        raise UserError(f"{repository}: was not pushed: {why}") from error
    except RuntimeError as error:  # of a large file
        why = f"{first_line(error)} {first_line(error.__cause__ or error)}"
        raise UserError(f"{repository}: was not pushed: {why}") from error
    return info.oid, str(made)
