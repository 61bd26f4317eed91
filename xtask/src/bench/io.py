"""Reads and writes in a container: what is in layers (dm-verity), in the scratch space (dm-crypt over dm-integrity), and over a socket.

Prints one line of JSON with megabytes or operations a second, then answers one connection on port 8000.
"""
import json, os, random, socket, time

MIB = 1 << 20
ALL = 32 * MIB
BLOCK = 4096
COUNT = 1000


def forget(file, advice):
    """What is cached is dropped: it would be read from memory, where nothing checks it."""
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(file, 0, 0, advice)


def rate(amount, work):
    start = time.monotonic()
    work()
    return amount / (time.monotonic() - start)


def in_layers():
    """The largest files below /usr, which are in the image's layers, opened: ALL bytes or a little more; and how many bytes."""
    found = []
    for folder, _, names in os.walk("/usr"):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) >= 16 * BLOCK:
                found.append((os.path.getsize(path), path))
    files, total = [], 0
    for size, path in sorted(found, reverse=True):
        if total >= ALL:
            break
        files.append(os.open(path, os.O_RDONLY))
        total += size
    return files, total


def whole(file):
    os.lseek(file, 0, 0)
    while os.read(file, MIB):
        pass


def anywhere(files):
    for _ in range(COUNT):
        file = random.choice(files)
        os.pread(file, BLOCK, random.randrange(os.fstat(file).st_size // BLOCK) * BLOCK)


def written_whole(file):
    block = os.urandom(MIB)
    for at in range(0, ALL, MIB):
        os.pwrite(file, block, at)
    os.fsync(file)


def written_anywhere(file):
    block = os.urandom(BLOCK)
    for _ in range(COUNT):
        os.pwrite(file, block, random.randrange(ALL // BLOCK) * BLOCK)
    os.fsync(file)


def measured():
    random.seed(1)
    layers, total = in_layers()
    scratch = os.open("/var/tmp/scratch", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    result = {"bytes in layers": total}

    def reading(name, files, amount):
        for kind, advice, size, work in (
            ("in sequence, MB/s", os.POSIX_FADV_SEQUENTIAL, amount / 1e6, lambda: [whole(file) for file in files]),
            ("4 KiB at random, 1/s", os.POSIX_FADV_RANDOM, COUNT, lambda: anywhere(files)),
        ):
            for file in files:
                forget(file, advice)
            result[f"{name} read {kind}"] = rate(size, work)

    reading("layers", layers, total)
    result["scratch written in sequence, MB/s"] = rate(ALL / 1e6, lambda: written_whole(scratch))
    result["scratch written 4 KiB at random, 1/s"] = rate(COUNT, lambda: written_anywhere(scratch))
    reading("scratch", [scratch], ALL)
    return result


def served():
    with socket.create_server(("", 8000)) as listener:
        connection, _ = listener.accept()
        block = bytes(MIB)
        for _ in range(ALL // MIB):
            connection.sendall(block)
        # All that the other side sends, and one byte that says that it has come.
        left = ALL
        while left > 0:
            got = len(connection.recv(min(left, MIB)))
            if got == 0:
                return
            left -= got
        connection.sendall(b"!")
        connection.close()


print(json.dumps(measured()), flush=True)
served()
time.sleep(600)
