"""Storage that is written by several and fails: does a reader ever meet half an output, is one ever lost?

    python benchmarks/storage.py
    python benchmarks/storage.py --replacements 100 --outputs 10 --skip-peers

Against moto's S3 server on this machine, each process with a scratch folder of its own:

- two writers replace one output so many times in all, while a reader reads it as stages do, another one by its stable
  path alone, and `skyscript gc` removes what nobody has used for half a minute;
- outputs are made and read back through a proxy that refuses 5 % of all requests, cuts 5 % of all connections and waits
  200 ms before each answer;
- obstore, which the plant uses, and s3fs are asked for the same.

A replacement is lost where its writer, when it is done, finds a lower pointer than its own to be the last; an output is
torn where files of one look are not those of one record. Last, what it costs to compare bytes with their digests.
"""

import hashlib
import json
import multiprocessing
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from faulty_server import BUCKET, CREDENTIALS, Faults, before, object_store
from measuring import options_of, parser_of, print_head, print_row, run_apart

from skyscript_assets.lib.files import file_sha256
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.storage.garbage import left_over, remove

KEY = OutputKey("image_chips", ("helsinki", "SYN1"))
FILES, GRACE_S = ("chips.parquet", "part-00000.tar", "inner/sheet.jpg"), 30.0


@contextmanager
def store_at(port: int) -> Iterator[Store]:
    """The store behind a port, with an own scratch folder that goes afterwards."""
    os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    with tempfile.TemporaryDirectory() as scratch:
        yield Store(f"s3://{BUCKET}/data", Path(scratch))


def replace(store: Store, text: str, size: int = 2000, key: OutputKey = KEY) -> str:
    """Make an output whose files all hold the same text; its fingerprint."""
    with store.writing(key, text) as out:
        for name in FILES:
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text((text + "\n") * (size // len(text)))
        store.complete(key, fingerprint=text, made_from={}, counts={})
    return text


def is_torn(folder: Path) -> bool:
    """Whether files are of different versions."""
    return len({(folder / name).read_text().split("\n", 1)[0] for name in FILES}) > 1


def write(port: int, times: int, found: Any) -> None:
    """Replace the output so many times."""
    with store_at(port) as store:
        for _ in range(times):
            text = replace(store, secrets.token_hex(16))
            last = store.pointers(str(KEY))[KEY]
            own = [name for name, _ in last if name[9:].startswith(text)]
            found.put("replaced")
            if not own or last[-1][0] < own[0]:
                found.put("lost")


def read(port: int, done: Event, found: Any) -> None:
    """Read the output as stages do: its files by digests, its pointer never an earlier one."""
    before = ""
    with store_at(port) as store:
        while not done.is_set():
            now = store.pointers(str(KEY))[KEY][-1][0]
            found.put("read torn" if is_torn(store.folder(KEY, verify=True)) else "read")
            if now < before:
                found.put("lost")
            before = now


def read_stable(port: int, done: Event, found: Any) -> None:
    """Read the output by its stable path alone."""
    with store_at(port) as store:
        assert store.remote is not None
        while not done.is_set():
            about = json.loads(store.remote.read(f"{KEY}/output.json"))
            place = about["folder"].removeprefix("../../../")
            digests = {name: hashlib.sha256(store.remote.read(f"{place}/{name}")).hexdigest() for name in FILES}
            torn = digests != {name: sha256 for name, (_, sha256) in about["files"].items()}
            found.put("stable path torn" if torn else "stable path read")


def clear(port: int, done: Event, found: Any) -> None:
    """Remove what nobody has used for a while."""
    with store_at(port) as store:
        while not done.wait(5):
            for left in left_over(store, GRACE_S):
                remove(store, left)
                found.put(f"{left.what} removed")


def race(port: int, replacements: int) -> Counter[str]:
    """Two writers, two readers and gc, each a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    found, done = spawn.Queue(), spawn.Event()
    with store_at(port) as store:
        replace(store, "first")
    writers = [spawn.Process(target=write, args=(port, replacements // 2, found)) for _ in range(2)]
    others = [spawn.Process(target=work, args=(port, done, found)) for work in (read, read_stable, clear)]
    for process in (*writers, *others):
        process.start()
    counts: Counter[str] = Counter()
    while any(process.is_alive() for process in (*writers, *others)) or not found.empty():
        if not any(writer.is_alive() for writer in writers):
            done.set()
        while not found.empty():
            counts[found.get()] += 1
        time.sleep(0.05)
    counts["processes failed"] = sum(process.exitcode != 0 for process in (*writers, *others))
    with store_at(port) as store:
        head, stable = store.head(KEY), json.loads(store.remote.read(f"{KEY}/output.json")) if store.remote else {}
        assert head is not None
        counts["stable path is behind"] = int(stable["fingerprint"] != head.fingerprint)
    return counts


def faulty(port: int, outputs: int) -> Counter[str]:
    """Make outputs through a proxy with faults and read them back, all else new."""
    faults = Faults(port, latency_s=0.2, refused=0.05, dropped=0.05)
    with before(faults) as proxy, store_at(proxy) as store, store_at(proxy) as reader:
        for number in range(outputs):
            key = OutputKey("captions", (f"r{number}", "S"))
            replace(store, secrets.token_hex(16), 2_000_000, key)
            faults.seen["outputs torn"] += is_torn(reader.folder(key, verify=True))
    return faults.seen


OBSTORE = """
import obstore
from obstore.store import from_url
store = from_url("{address}", config={{"endpoint": "{endpoint}"}}, client_options={{"allow_http": True}})
def put(name, content): obstore.put(store, name, content)
def get(name): return len(bytes(obstore.get(store, name).bytes()))
def listed(): return sum(map(len, obstore.list(store, "x")))
"""
S3FS = """
import s3fs
fs = s3fs.S3FileSystem(endpoint_url="{endpoint}")
root = "{address}/".removeprefix("s3://")
def put(name, content): fs.pipe_file(root + name, content)
def get(name): return len(fs.cat_file(root + name))
def listed(): fs.invalidate_cache(); return len(fs.find(root + "x"))
"""
WORKS = {
    "import": "pass",
    "put 3,200 pointers": 'for n in range(3200): put(f"x/r{n}/S/00000001." + "f" * 140, b"")',
    "list 3,200 pointers": "assert listed() == 3200",
    "put 1 MB": 'put("b1", bytes(10**6))',
    "get 1 MB": 'assert get("b1") == 10**6',
    "put 50 MB": 'put("b50", bytes(50 * 10**6))',
    "get 50 MB": 'assert get("b50") == 50 * 10**6',
}


def peers(port: int) -> None:
    """Print what each client takes."""
    print_head("", "obstore, s", "s3fs, s")
    for name, work in WORKS.items():
        cells = []
        for peer, imports in (("obstore", OBSTORE), ("s3fs", S3FS)):
            ready = imports.format(address=f"s3://{BUCKET}/{peer}", endpoint=f"http://127.0.0.1:{port}")
            head, body = ("import time", ready) if name == "import" else (ready, work)
            code = f"{head}\nimport time\nstarted = time.perf_counter()\n{body}\n"
            code += 'print("work_s", time.perf_counter() - started)'
            try:
                cells.append(f"{run_apart(['python', '-c', code], environment=CREDENTIALS).work_s:.2f}")
            except RuntimeError as error:
                cells.append(str(error)[:60])
        print_row(name, *cells)


def digests(folder: Path, megabytes: int) -> None:
    """Print what it takes to compare a file with its digest."""
    path = folder / "file"
    path.write_bytes(os.urandom(10**6) * megabytes)
    file_sha256(path)
    cpu, started = time.process_time(), time.perf_counter()
    file_sha256(path)
    rate = 1000 / megabytes
    print(f"SHA-256 of a file that is in memory: {(time.perf_counter() - started) * rate:.2f} s per GB, ", end="")
    print(f"{(time.process_time() - cpu) * rate:.2f} s of CPU")


def shown(title: str, work: Callable[[], Counter[str]]) -> None:
    """Print what was counted, and the time."""
    started = time.perf_counter()
    counts = work()
    counts.update({name: 0 for name in ("lost", "read torn", "stable path torn") if "replaced" in counts})
    print(f"\n{title}, {time.perf_counter() - started:.0f} s\n")
    print_head("what", "times")
    for name, count in sorted(counts.items()):
        print_row(name, f"{count:,}")


def main() -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--replacements", type=int, default=1000, help="of both writers together")
    parser.add_argument("--outputs", type=int, default=40, help="made through the proxy")
    parser.add_argument("--megabytes", type=int, default=500, help="size of the file that is compared with its digest")
    parser.add_argument("--skip-peers", action="store_true")
    options = options_of(parser)
    with object_store() as port:
        shown("Two writers", lambda: race(port, options.replacements))
    with object_store() as port:
        shown("Faults", lambda: faulty(port, options.outputs))
        print()
        if not options.skip_peers:
            peers(port)
    with tempfile.TemporaryDirectory() as folder:
        digests(Path(folder), options.megabytes)


if __name__ == "__main__":
    main()
