"""Where a saved projector is: a local folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from aim_sdk.errors import ArtifactNotFoundError, did_you_mean
from aim_sdk.files.atomic import expanded
from aim_sdk.projectors.saved import CONFIG_FILE, WEIGHTS_FILE


def located(
    source: str,
    *,
    revision: str | None,
    cache_dir: str | Path | None,
    force_download: bool,
    local_files_only: bool,
    token: str | bool | None,
) -> Path:
    """The folder that holds a projector's files; those of the Hub are downloaded into its cache.

    The keywords are those of `huggingface_hub.hf_hub_download`; a local folder needs none of them.

    Raises:
        ArtifactNotFoundError: no such folder, file or Hub repository, or it cannot be reached.
    """
    folder = expanded(source)
    if folder.is_dir():
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
        if missing:
            raise ArtifactNotFoundError(f"{folder}: not a projector folder; {' and '.join(missing)} not found in it.")
        return folder
    if folder.exists() or folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ArtifactNotFoundError(f"{folder}: no such projector folder.{did_you_mean(folder.name, siblings)}")
    try:
        paths = [
            huggingface_hub.hf_hub_download(
                source,
                name,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
            for name in (CONFIG_FILE, WEIGHTS_FILE)
        ]
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        where = "the local cache of the Hub" if local_files_only else "the Hub cannot be reached or"
        raise ArtifactNotFoundError(
            f"projector {source!r}: no such local folder, and {where} does not hold it ({type(error).__name__}).\n"
            "Without network, pass the path of a local projector folder."
        ) from error
    return Path(paths[0]).parent
