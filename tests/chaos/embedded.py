"""A play on the embedded store: one worker, whose disk can fill up and whose store can be set back."""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from penchant.profile.store.edge_shard import copy_shards
from tests.chaos.play import Play

__all__ = ["Embedded"]

DISK_MIB = 4_096
LEFT_MIB = 16
STEP_MIB = 64


class Embedded(Play):
    """See the module.

    Args:
        folder: for everything.
        seed: of the traffic.
        users: in the traffic.
        items: of the catalogue.
    """

    def __init__(self, folder: Path, *, seed: int, users: int, items: int) -> None:
        disk = folder / "data"
        disk.mkdir(parents=True)
        # A disk of its own, so that no other fills up with it.
        mount = [str(shutil.which("mount")), "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)]
        self.own_disk = subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode == 0
        super().__init__(folder, seed=seed, users=users, items=items, sections={})
        self._store = self.stage.settings.data_dir / "store"
        self._copy = folder / "copy"

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        if self.own_disk:
            subprocess.run([str(shutil.which("umount")), "--lazy", str(self.stage.settings.data_dir)], check=True)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Within the block the disk has next to no space."""
        ballast = self.stage.settings.data_dir / "ballast"
        with ballast.open("wb") as file:
            _fill_up(file.fileno(), ballast.parent)
        yield
        ballast.unlink()

    def take_copy(self) -> None:
        """Copies the store of a worker that does not run."""
        shutil.rmtree(self._copy, ignore_errors=True)
        copy_shards(self._store, self._copy)

    def restore_copy(self) -> None:
        """Puts the older copy in the store's place, and what was there in the copy's. No worker may run."""
        former = self._copy.with_name("former")
        copy_shards(self._store, former)
        shutil.rmtree(self._store)
        copy_shards(self._copy, self._store)
        shutil.rmtree(self._copy)
        former.rename(self._copy)


def _fill_up(file: int, disk: Path) -> None:
    """Gives the file what is left of the disk, but for some.

    Step by step, for the worker writes meanwhile and may well take the last of the space itself.
    """
    while (free := shutil.disk_usage(disk).free - (LEFT_MIB << 20)) > 0:
        try:
            os.posix_fallocate(file, os.fstat(file).st_size, min(free, STEP_MIB << 20))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return
            raise
