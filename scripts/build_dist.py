"""
Build the source distribution and the wheel, so that two builds of one commit are identical byte for byte.

    python scripts/build_dist.py [--outdir dist]

``SOURCE_DATE_EPOCH`` is the time of all files in both archives; by default, the time of the last commit.
setuptools uses it for the wheel only, so the files of the source distribution are given that time here.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commit_time() -> int:
    """Return the time of the last commit in seconds since 1970."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def with_fixed_times(archive: bytes, *, epoch: int) -> bytes:
    """Return a tar.gz with the same files in the order of their names, all with one time and no owner."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as source,
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() else 0o644
            member.pax_headers = {}
            target.addfile(member, source.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def build(outdir: Path, *, epoch: int) -> list[Path]:
    """Build both archives from the files that git knows, and return their paths."""
    outdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tavus-dist-") as name:
        source, built = Path(name) / "source", Path(name) / "built"
        files = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True)
        for file in files.stdout.decode().split("\0")[:-1]:
            target = source / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / file).read_bytes())
            target.chmod(0o644)
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(built), str(source)],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        )
        results = []
        for path in sorted(built.iterdir()):
            data = path.read_bytes()
            if path.name.endswith(".tar.gz"):
                data = with_fixed_times(data, epoch=epoch)
            results.append(outdir / path.name)
            results[-1].write_bytes(data)
        return results


def main() -> None:
    """Build into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or commit_time())
    for path in build(options.outdir, epoch=epoch):
        print(path)


if __name__ == "__main__":
    main()
