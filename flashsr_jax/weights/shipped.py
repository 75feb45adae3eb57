"""Weights by name: models that come with the package, and those of the Hugging Face Hub."""

import os
from pathlib import Path

from flashsr_jax.errors import UserError, reason
from flashsr_jax.extras import needing
from flashsr_jax.files import DENIED, local

SHIPPED = {"small": Path(__file__).parent / "small.safetensors"}
HUB = "hf:"
HUB_FILE = "model.safetensors"  # of a repository, unless the name says another


def weights_path(model: str | os.PathLike) -> Path:
    """The weights file of a shipped model's name, or of `hf:OWNER/REPO` or `hf:OWNER/REPO/FILE` (also hf://...), which
    is fetched into the hub's own cache once; any other string is a path itself.

    Raises UserError where something cannot be fetched and is not in the cache, where it is not there yet and the cache
    cannot be written to, and as `local` does.
    """
    name = str(model)
    return _from_hub(name) if name.startswith(HUB) else SHIPPED.get(name) or local(model)


def _from_hub(name: str) -> Path:
    owner, _, rest = name.removeprefix(HUB).removeprefix("//").partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise UserError(f"{name}: write hf:OWNER/REPO, or hf:OWNER/REPO/FILE")
    with needing("hub", name):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file or HUB_FILE))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{name} is not in the hub's cache, and the hub cannot be reached; is there a network?"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        if getattr(error, "errno", None) in DENIED:  # of the cache: all else here comes from the network
            raise UserError(
                f"{name} cannot be kept in the hub's cache ({reason(error)}): set HF_HOME to a folder that can be "
                "written; HF_HUB_OFFLINE=1 takes what was fetched before"
            ) from error
        raise UserError(f"{name} cannot be fetched: {str(error).strip().splitlines()[0]}") from error
