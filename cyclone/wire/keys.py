"""Key pairs on disk, and the list of the keys that a master or a sink admits.

    KEY_DIR                     0700
        NAME.secret             0600   name, role, public and secret half
        NAME.public             0644   the same without the secret
        authorized/NAME.public  0644   the allow-list; the role says what its owner may say
        authorized/NAME.revoked 0644   was on the list: the next start of a master does not put it back

A controller on another node needs its own NAME.secret, master.public and, if it has sinks, sink.public, and nothing
else. Every file comes into
being whole or not at all and is never overwritten, so two masters may make the same directory at the same time,
and one that was killed half-way is followed by one that makes the rest.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import re
import secrets
import shlex
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import zmq
from zmq.utils import z85

from cyclone.errors import KeyFileError, KeyFileMissing


class Role(StrEnum):
    """What the owner of a key is, and therefore may say."""

    MASTER = "master"
    CONTROLLER = "controller"
    CLIENT = "client"
    SINK = "sink"


#: Roles whose keys can be put on the list: the others are those of servers.
ADMISSIBLE = frozenset({Role.CONTROLLER, Role.CLIENT})

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
_Z85 = re.compile(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}\Z")
_FILE_BYTES_MAX = 4096


def fingerprint(raw: bytes) -> str:
    """What people compare, written as ssh writes it. raw: the 32 bytes of a public key."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode("ascii").rstrip("=")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may be shown to anybody. public: in z85."""

    name: str
    role: Role
    public: bytes

    @property
    def raw(self) -> bytes:
        """The 32 bytes, as they travel."""
        return z85.decode(self.public)

    @property
    def fingerprint(self) -> str:
        """What people compare."""
        return fingerprint(self.raw)

    @property
    def user_id(self) -> str:
        """What ZAP puts on every frame. It ends with the fingerprint, or a connection would outlive its key
        whenever a new key gets the name of a revoked one."""
        return f"{self.role}:{self.name}:{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Both halves, in z85. The secret one shows up in no log and no traceback."""

    name: str
    role: Role
    public: bytes
    secret: bytes = field(repr=False)

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(self.name, self.role, self.public)


@dataclass(frozen=True, slots=True)
class Listed:
    """What a key directory holds under one name."""

    name: str
    role: Role
    fingerprint: str
    has_secret: bool
    authorized: bool
    revoked: bool


# Making and reading.


def new_pair(name: str, role: Role) -> KeyPair:
    """A key pair that is in no file and on nobody's list."""
    public, secret = zmq.curve_keypair()
    return KeyPair(name, role, public, secret)


def make(key_dir: Path, name: str, role: Role) -> KeyPair:
    """Make a new key pair. Raises KeyFileError when the name is not one or is taken."""
    _check_name(name)
    _check_directory(_made_directory(key_dir, 0o700))
    public_file = _public_file(key_dir, name)
    if public_file.exists():
        raise KeyFileError("exists already; it is never overwritten", file=public_file)
    new = new_pair(name, role)
    _create(_secret_file(key_dir, name), _text(new, new.secret), 0o600)
    # A secret without its public file was left by somebody who was killed in between: it is completed.
    pair = load_pair(key_dir, name)
    if pair.role is not role:
        raise KeyFileError(f"exists already, in the role {pair.role}", file=_secret_file(key_dir, name))
    if not _create(public_file, _text(pair.public_key), 0o644):
        raise KeyFileError("exists already; somebody else has just made it", file=public_file)
    return pair


def load_pair(key_dir: Path, name: str) -> KeyPair:
    """Raises KeyFileError: missing, malformed, owned by somebody else, or open to others, as its directory may be."""
    _check_name(name)
    file = _secret_file(key_dir, name)
    text = _read(file, forbidden=0o077, owners={os.geteuid()})
    _check_directory(key_dir)
    found = _fields(file, text, ("public", "secret"))
    public, secret = found["public"].encode(), found["secret"].encode()
    if zmq.curve_public(secret) != public:
        raise KeyFileError("its public half does not belong to its secret half", file=file)
    return KeyPair(_expect_name(file, found["name"]), _role(file, found["role"]), public, secret)


def load_public(key_dir: Path, name: str) -> PublicKey:
    """A public key that is trusted from now on, so others must not be able to write to its file.

    Raises KeyFileError: missing, malformed, or writable by others, as its directory may be.
    """
    _check_name(name)
    key = _public(_public_file(key_dir, name), trusted=True)
    _check_directory(key_dir)
    return key


def ensure(key_dir: Path) -> list[str]:
    """Make what a master or a sink needs that is not there: a key pair for each role, and admit those of controllers
    and clients. Returns the names of the pairs that it made; changes nothing that exists.

    A public key without a secret one means that the secret lives on another host, and a revoked key stays so.
    Raises KeyFileError.
    """
    _check_directory(_made_directory(key_dir, 0o700))
    authorized = _made_directory(key_dir / "authorized", 0o755)
    made = []
    for role in Role:
        name = role.value
        secret_file, public_file = _secret_file(key_dir, name), _public_file(key_dir, name)
        entry, revoked = authorized / public_file.name, authorized / f"{name}.revoked"
        strangers = (public_file, entry, revoked)
        if not secret_file.exists() and not any(file.exists() for file in strangers):
            pair = new_pair(name, role)
            if _create(secret_file, _text(pair, pair.secret), 0o600):
                made.append(name)
        if not secret_file.exists():
            continue
        # Read again: another process may have been the one that made it.
        key = load_pair(key_dir, name).public_key
        _create(public_file, _text(key), 0o644)
        if role in ADMISSIBLE and not revoked.exists():
            _create(entry, _text(key), 0o644)
    return made


# The allow-list.


class KeyRing:
    """The keys that are admitted. Owns the list in memory; the files in `KEY_DIR/authorized` are its source."""

    def __init__(self, key_dir: Path) -> None:
        self._directory = key_dir / "authorized"
        self._by_raw: Mapping[bytes, PublicKey] = {}
        self._by_user_id: Mapping[str, PublicKey] = {}
        self._seen: frozenset[tuple[str, int, int]] | None = None
        self.reload()

    def refresh(self) -> bool:
        """Read the list again if a file of it has come, gone or been changed since; whether that is so.

        Raises KeyFileError as `reload`, and again each time until the list is in order.
        """
        if self._look() == self._seen:
            return False
        self.reload()
        return True

    def reload(self) -> None:
        """Read the list again. Raises KeyFileError naming the first bad file.

        What that file said before, if anything, stays in force, and every other file counts: one that nobody can read, or that is
        half written, keeps no key on the list that was revoked.
        """
        # Looked at before it is read: what changes meanwhile is noticed the next time.
        seen, self._seen = self._look(), None
        _check_directory(self._directory)
        former = {key.name: key for key in self._by_raw.values()}
        by_raw: dict[bytes, PublicKey] = {}
        problem: KeyFileError | None = None
        # Who is on the list already goes first: of two files with one key it is the new one that is wrong.
        for file in sorted(
            self._directory.glob("*.public"), key=lambda file: (file.stem not in former, file)
        ):
            key: PublicKey | None
            try:
                key = _public(file, trusted=True)
                _check_admissible(file, key)
            except KeyFileError as error:
                if isinstance(error, KeyFileMissing) and not file.is_symlink():
                    continue  # it was revoked at this moment
                key = former.get(file.stem)
                effect = "it lets nobody in" if key is None else "what it said before stays in force"
                problem = problem or KeyFileError(f"{error.problem}; {effect}", file=file)
            if key is not None and (holder := by_raw.setdefault(key.raw, key)) is not key:
                problem = problem or KeyFileError(f"is the same key as that of {holder.name}", file=file)
        self._by_raw, self._by_user_id = by_raw, {key.user_id: key for key in by_raw.values()}
        if problem is not None:
            raise problem
        self._seen = seen

    def _look(self) -> frozenset[tuple[str, int, int]]:
        """Name, number and last change of every file of the list."""
        seen = set()
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if entry.name.endswith(".public"):
                        with suppress(FileNotFoundError):  # it was revoked at this moment
                            status = entry.stat()
                            seen.add((entry.name, status.st_ino, status.st_ctime_ns))
        except OSError as error:
            raise KeyFileError(f"cannot be read: {error}", file=self._directory) from error
        return frozenset(seen)

    @property
    def keys(self) -> Mapping[bytes, PublicKey]:
        """`{raw public key: key}`."""
        return MappingProxyType(self._by_raw)

    def admitted(self, raw: bytes) -> PublicKey | None:
        """Whose key it is, or None if it is nobody's."""
        return self._by_raw.get(raw)

    def still_admitted(self, user_id: str) -> PublicKey | None:
        """The key that was admitted under this User-Id, if it is still on the list."""
        return self._by_user_id.get(user_id)


def authorize(key_dir: Path, file: Path) -> PublicKey:
    """Put the key of a public file on the list; also one that was revoked before. Doors notice within seconds.

    Raises KeyFileError: a malformed file, a role that is not admitted, or a name that has another key already.
    """
    key = _public(file, trusted=False)
    _check_admissible(file, key)
    _check_directory(_made_directory(key_dir, 0o700))
    authorized = _made_directory(key_dir / "authorized", 0o755)
    entry = _public_file(authorized, key.name)
    for listed in KeyRing(key_dir).keys.values():
        if listed.public == key.public and listed.name != key.name:
            raise KeyFileError(f"is the same key as that of {listed.name}, which is authorized", file=file)
    if not _create(entry, _text(key), 0o644) and _public(entry, trusted=True) != key:
        raise KeyFileError(f"another key of {key.name} is authorized already; revoke that first", file=entry)
    (authorized / f"{key.name}.revoked").unlink(missing_ok=True)
    return key


def revoke(key_dir: Path, name: str) -> None:
    """Take the key of this name off the list. Raises KeyFileError when it is not on it.

    Doors notice within seconds and drop whatever its owner says from then on, also over open connections.
    """
    _check_name(name)
    entry = _public_file(key_dir / "authorized", name)
    try:
        entry.replace(entry.with_name(f"{name}.revoked"))
        _sync(entry.parent)
    except FileNotFoundError:
        raise KeyFileError("no such file; expected the key of an authorized name", file=entry) from None
    except OSError as error:
        raise KeyFileError(f"cannot be revoked: {error}", file=entry) from error


def listing(key_dir: Path) -> list[Listed]:
    """Every name in the directory, sorted. Raises KeyFileError when a file is malformed or cannot be read."""
    keys: dict[str, PublicKey] = {}
    authorized = key_dir / "authorized"
    # The list entry goes last: it is the one that counts when files of one name differ.
    for directory, ending in ((authorized, "revoked"), (key_dir, "public"), (authorized, "public")):
        for file in directory.glob(f"*.{ending}"):
            keys[file.stem] = _public(file, trusted=False)
    return [
        Listed(
            name, key.role, key.fingerprint,
            has_secret=_secret_file(key_dir, name).exists(),
            authorized=_public_file(authorized, name).exists(),
            revoked=(authorized / f"{name}.revoked").exists(),
        )
        for name, key in sorted(keys.items())
    ]  # fmt: skip


# Files.


def _secret_file(key_dir: Path, name: str) -> Path:
    return key_dir / f"{name}.secret"


def _public_file(directory: Path, name: str) -> Path:
    return directory / f"{name}.public"


def _text(key: PublicKey | KeyPair, secret: bytes | None = None) -> str:
    lines = [f"name = {key.name}", f"role = {key.role}", f"public = {key.public.decode('ascii')}"]
    if secret is not None:
        lines.insert(0, "# Whoever can read this file can pass for its owner.")
        lines.append(f"secret = {secret.decode('ascii')}")
    return "\n".join([*lines, ""])


def _create(file: Path, text: str, mode: int) -> bool:
    """Make the file, whole and on disk, or leave the one that is there: then the answer is False."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}.new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with open(descriptor, "w", encoding="ascii") as stream:
                # The umask can only have taken bits away; a public file must be readable all the same.
                os.fchmod(descriptor, mode)
                stream.write(text)
                stream.flush()
                os.fsync(descriptor)
            # Unlike a rename, a link never replaces what another process has made in the meantime.
            os.link(draft, file)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        _sync(file.parent)
    except OSError as error:
        raise KeyFileError(f"cannot be made: {error}", file=file) from error
    return True


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _made_directory(directory: Path, mode: int) -> Path:
    try:
        # Those above it, too: whoever may write to one of them may exchange the rest.
        for missing in reversed([each for each in directory.parents if not each.exists()]):
            missing.mkdir(mode=0o755, exist_ok=True)
        directory.mkdir(mode=mode, exist_ok=True)
    except FileExistsError:
        raise KeyFileError("found a file, expected a directory", file=directory) from None
    except OSError as error:
        raise KeyFileError(f"cannot be made: {error.strerror}", file=directory) from error
    return directory


def _read(file: Path, *, forbidden: int, owners: set[int] | None) -> str:
    """The text of a regular file that has none of the forbidden permission bits and one of the owners.

    Both are asked of the open file, so that it cannot be exchanged between the question and the reading.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            _check_access(file, os.fstat(descriptor), forbidden, owners)
            return stream.read(_FILE_BYTES_MAX + 1).decode("ascii")
    except FileNotFoundError:
        raise KeyFileMissing("no such file; expected a key that `cyclone keys` has made", file=file) from None
    except UnicodeDecodeError:
        raise KeyFileError("is not a key file: it holds bytes that are not ASCII", file=file) from None
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error}", file=file) from error


def _check_access(file: Path, status: os.stat_result, forbidden: int, owners: set[int] | None) -> None:
    mode, kind = stat.S_IMODE(status.st_mode), stat.S_IFMT(status.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise KeyFileError("is not a regular file", file=file)
    quoted = shlex.quote(str(file))
    if owners is not None and status.st_uid not in owners:
        expected = _user(os.geteuid())
        problem = f"is owned by {_user(status.st_uid)}, expected {expected}; run: chown {expected} {quoted}"
        raise KeyFileError(problem, file=file)
    if mode & forbidden:
        change = "600" if forbidden == 0o077 else "go-w"
        problem = f"found mode {mode:04o}, expected {mode & ~forbidden:04o}; run: chmod {change} {quoted}"
        raise KeyFileError(problem, file=file)


def _check_directory(directory: Path) -> None:
    """Whoever may write to the directory may exchange every key in it, and so may who has put a link in its place."""
    owners = {0, os.geteuid()}
    try:
        status, place = directory.stat(), directory.lstat()
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error}", file=directory) from error
    if not stat.S_ISDIR(status.st_mode):
        raise KeyFileError("is not a directory", file=directory)
    if stat.S_ISLNK(place.st_mode) and place.st_uid not in owners:
        raise KeyFileError(
            f"is a symbolic link of {_user(place.st_uid)}, which is not followed", file=directory
        )
    _check_access(directory, status, 0o022, owners)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


# What stands in them.


def _public(file: Path, *, trusted: bool) -> PublicKey:
    """trusted: the file itself decides who gets in, or who is believed to be the master."""
    forbidden, owners = (0o022, {0, os.geteuid()}) if trusted else (0, None)
    found = _fields(file, _read(file, forbidden=forbidden, owners=owners), ("public",))
    name = _expect_name(file, found["name"]) if trusted else found["name"]
    return PublicKey(name, _role(file, found["role"]), found["public"].encode())


def _fields(file: Path, text: str, keys: tuple[str, ...]) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    expected = ["name", "role", *keys]
    # Neither values nor unknown keys are quoted here: one of them may be the secret.
    if len(lines) != len(expected) or set(found) != set(expected):
        raise KeyFileError(f"is not a key file: expected {', '.join(expected)}, each once", file=file)
    if not _NAME.match(found["name"]):
        raise KeyFileError(f"found the name {found['name']!r}, expected {_NAME.pattern[:-2]}", file=file)
    for key in keys:
        if not _is_z85(found[key]):
            raise KeyFileError(f"its {key} key is not one: expected 40 characters of z85", file=file)
    return found


def _is_z85(text: str) -> bool:
    # Five characters can also say more than 32 bits hold; libzmq is asked whether these do.
    if not _Z85.match(text):
        return False
    try:
        zmq.curve_public(text.encode())
    except zmq.ZMQError:
        return False
    return True


def _role(file: Path, text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise KeyFileError(
            f"found the role {text!r}, expected one of: {', '.join(Role)}", file=file
        ) from None


def _expect_name(file: Path, name: str) -> str:
    # Or a key could not be found again by its name when it is to be revoked.
    if name != file.stem:
        raise KeyFileError(f"holds the key of {name!r}, expected that of {file.stem!r}", file=file)
    return name


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise KeyFileError(f"{name!r} is not a name for a key; expected {_NAME.pattern[:-2]}")


def _check_admissible(file: Path, key: PublicKey) -> None:
    if key.role not in ADMISSIBLE:
        expected = ", ".join(sorted(ADMISSIBLE))
        raise KeyFileError(f"found the role {key.role}, expected one of: {expected}", file=file)
