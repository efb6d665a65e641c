"""A bank's images that are not kept in it: files may have been moved or overwritten since, PIL images drawn on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from aim_sdk.bank.store import Store
from aim_sdk.errors import ImageError
from aim_sdk.files.atomic import expanded
from aim_sdk.files.images import describe, image_digest
from aim_sdk.support.progress import Advance
from aim_sdk.types import Demonstration, LazyImage


class Photos:
    """Finds the images of a store's demonstrations, and tells whether they are still those that were read.

    Args:
        store: it keeps the digest of each image.
        root: where images are looked for that have moved: below it by the end of their path, as much of it as fits
            (`/old/birds/a.jpg` is `root/old/birds/a.jpg`, `root/birds/a.jpg` or `root/a.jpg`); None: where they were.
    """

    def __init__(self, store: Store, root: str | Path | None = None) -> None:
        self._store, self._root = store, None if root is None else expanded(root)
        if self._root is not None and not self._root.is_dir():
            raise ImageError(f"images={describe(self._root)}: no such folder.")

    def placed(self, demonstration: Demonstration) -> Demonstration:
        """The demonstration with its image's current path, as far as names tell."""
        image = demonstration.image
        if self._root is None or not isinstance(image, str | os.PathLike):
            return demonstration
        parts = Path(image).parts
        below = (self._root.joinpath(*parts[start:]) for start in range(Path(image).is_absolute(), len(parts)))
        found = next((path for path in below if path.is_file()), None)
        return demonstration if found is None else replace(demonstration, image=str(found))

    def checked(self, key: str) -> Demonstration:
        """The demonstration, after checking that its image is the one that was read.

        Raises:
            ImageError: its file is missing, or holds a different image now.
            KeyError: there is no such demonstration.
        """
        found = self.placed(self._store.demonstration(key))
        if isinstance(found.image, bytes | LazyImage):  # which do not change
            return found
        digest = self._store.digest(key)
        problem = f"{describe(found.image)}: not the image that was read, but another one"
        try:
            if image_digest(found.image) == digest:
                return found
        except ImageError as error:
            problem = str(error).rstrip(".")
        raise ImageError(
            f"{problem} (demonstration {key[:12]} of the bank).\n"
            "Next: put the file back, or name the folder that holds it now (images=FOLDER; `bank verify --images "
            "FOLDER`); or remove the demonstration and add it again."
        )

    def problems(self, advance: Advance = lambda _: None) -> list[str]:
        """Check all images; return what is wrong, one line each."""
        found = []
        for key in self._store.ordered_keys():
            try:
                self.checked(key)
            except ImageError as error:
                found.append(str(error).partition("\n")[0])
            except KeyError:
                pass  # removed meanwhile
            advance(1)
        return found
