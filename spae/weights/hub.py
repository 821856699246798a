"""What to say where a model of a hub is named and its files are wanted: nothing here downloads."""

import re

_OF_FILES = (".gguf", ".json", ".npy", ".pth", ".safetensors", ".tiktoken")


def download_hint(name: object) -> str:
    """What to add to the message that there is nothing at `name`: the command that downloads it, if it looks like
    ORG/NAME; else nothing."""
    found = re.fullmatch(r"\w[\w.-]*/(\w[\w.-]*)", str(name))
    if found is None or str(name).endswith(_OF_FILES):
        return ""
    return (
        f"; nothing is downloaded here: if it is a model's name, `hf download {name} --local-dir {found[1]}` does (pip "
        f"install huggingface_hub), then give {found[1]}"
    )
