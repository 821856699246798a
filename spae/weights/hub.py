"""Models by their names on a hub: `hf:ORG/REPO` and `hf:ORG/REPO/FILE`, and what to say where files are wanted.

Files come through huggingface_hub, into its cache: `$HF_HOME`, `$HF_ENDPOINT`, `$HF_TOKEN` and `$HF_HUB_OFFLINE` are
its own.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from spae.errors import InputError

HUB = "hf:"
_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:/(.+))?")
# Of a repository whose model is named without a file: the top folder's, but for other programs' weights.
_FOLDER = ("*.safetensors", "*.json", "*.jinja")
_OF_FILES = (".gguf", ".json", ".npy", ".pth", ".safetensors", ".tiktoken")


@dataclass(frozen=True)
class Located:
    """Where a model's files are.

    Attributes:
        path: a file or folder.
        name: what the model is called: of the file or folder, or of the repository.
        source: its name on the hub, or None.
        revision: the commit of the repository that the name stood for when it was fetched, or None.
    """

    path: Path
    name: str
    source: str | None = None
    revision: str | None = None

    def provenance(self) -> dict[str, str]:
        """Of a model of the hub its name there and the revision; else nothing."""
        if self.source is None or self.revision is None:
            return {}
        return {"hub": self.source, "revision": self.revision}


def locate(name: str | Path) -> Located:
    """The files of a model: `hf:ORG/REPO/FILE` (one file), `hf:ORG/REPO` (a folder), or a path as it is.

    Raises:
        InputError: no such repository or file on the hub, or the hub cannot be reached and its cache has none.
    """
    if not str(name).startswith(HUB):
        path = Path(name)
        return Located(path, path.stem if path.suffix == ".gguf" else path.resolve().name)
    found = _NAME.fullmatch(str(name))
    if found is None:
        raise InputError(f"model: wanted hf:ORG/REPO or hf:ORG/REPO/FILE; got {str(name)!r}")
    repository, file = found.groups()
    path, revision = _fetched(repository, file)
    return Located(path, Path(file).stem if file else repository.partition("/")[2], str(name), revision)


def _fetched(repository: str, file: str | None) -> tuple[Path, str]:
    """The file, or the repository's folder, in the hub's cache; and the revision."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise InputError(
            "huggingface_hub is not installed: pip install 'spae[icl]' or 'spae[serve]'"
        ) from error
    wanted = (
        f"the file {file} of {repository}" if file else f"the files of {repository} (safetensors and JSON)"
    )
    try:
        if file is not None:
            path = Path(huggingface_hub.hf_hub_download(repository, file))
        else:
            # A star stands for slashes, too: hence the second pattern.
            path = Path(
                huggingface_hub.snapshot_download(
                    repository, allow_patterns=list(_FOLDER), ignore_patterns=["*/*"]
                )
            )
    except errors.GatedRepoError as error:
        raise InputError(
            f"model: {repository} is given only to those who accept its terms: do so on its page, then set HF_TOKEN"
        ) from error
    except (
        errors.RepositoryNotFoundError,
        errors.RemoteEntryNotFoundError,
        errors.HFValidationError,
    ) as error:
        raise InputError(f"model: wanted {wanted}; the hub has no such thing: see how it is spelt") from error
    except (errors.LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"model: wanted {wanted}; it is not in the cache, and the hub cannot be reached ({type(error).__name__}): "
            "bring it here and give its path"
        ) from error
    if file is None and not (path / "config.json").is_file():
        raise InputError(
            f"model: {repository} has no config.json: name one of its files, such as hf:{repository}/MODEL.gguf"
        )
    return path, path.parts[path.parts.index("snapshots") + 1]


def download_hint(name: object) -> str:
    """What to add to the message that there is nothing at `name`: the command that downloads it, if it looks like
    ORG/NAME; else nothing."""
    found = _hub_like(name)
    if found is None:
        return ""
    return (
        f"; nothing is downloaded here: if it is a model's name, `hf download {name} --local-dir {found}` does (pip "
        f"install huggingface_hub), then give {found}"
    )


def hub_hint(name: object) -> str:
    """The same where names of the hub are taken."""
    return f"; a model of the hub is written hf:{name}" if _hub_like(name) else ""


def _hub_like(name: object) -> str | None:
    found = re.fullmatch(r"\w[\w.-]*/(\w[\w.-]*)", str(name))
    return None if found is None or str(name).endswith(_OF_FILES) else found[1]
