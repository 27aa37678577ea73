"""The git repository that a project lies in, and the names of the refs that llmctl keeps there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from llmctl.core.address import NAME
from llmctl.core.errors import RecordError
from llmctl.record.catfile import CatFile
from llmctl.record.git import GitCommand, require_version

ORIGIN = "origin"  # the remote whose fetched record is read where the environment names none
_ASK = (
    "rev-parse",
    "--path-format=absolute",
    "--is-inside-work-tree",
    "--git-common-dir",
    "--show-object-format",
    "--show-toplevel",
)
_ANSWER = re.compile(r"true\n(?P<common>.+)\n(?P<algorithm>sha1|sha256)\n(?P<top>.+)", re.DOTALL)


def branch(environment: str) -> str:
    """The ref of an environment's record. A branch below it is impossible, so side refs live elsewhere."""
    _check(environment)
    return f"refs/heads/llmctl/{environment}"


def remote_branch(environment: str, remote: str) -> str:
    """The record as it was fetched from a remote."""
    _check(environment)
    return f"refs/remotes/{remote}/llmctl/{environment}"


def seen_branch(environment: str, remote: str) -> str:
    """The same, out of reach of the user's own ``git fetch --prune``: what a remote had once must be there again."""
    _check(environment)
    return f"refs/llmctl-seen/{remote}/{environment}"


def side_ref(environment: str, name: str) -> str:
    """A ref of llmctl beside the record: ``lock`` or ``attempt/<serial>``."""
    _check(environment)
    return f"refs/llmctl/{environment}/{name}"


def remote_side_ref(environment: str, remote: str, name: str) -> str:
    """A ref beside the record as it was fetched from a remote. Not under ``refs/llmctl``: those are this clone's."""
    _check(environment)
    return f"refs/llmctl-remotes/{remote}/{environment}/{name}"


def side_refs(repository: Repository, environment: str) -> dict[str, str]:
    """What is beside the record, by the names that the refs have here and, as they were fetched, for the remote."""
    prefixes = [side_ref(environment, "")]
    if repository.remote:
        prefixes.append(remote_side_ref(environment, repository.remote, ""))
    lines = repository.git.line("for-each-ref", "--format=%(refname) %(objectname)", *prefixes).splitlines()
    return dict(line.split(" ", 1) for line in lines)


def recorded_environments(repository: Repository) -> list[str]:
    """Names of the environments that have a record here or, fetched, on the remote."""
    found: set[str] = set()
    for prefix in ("refs/heads/llmctl/", f"refs/remotes/{repository.remote or ORIGIN}/llmctl/"):
        refs = repository.git.line("for-each-ref", "--format=%(refname)", prefix)
        found.update(ref.removeprefix(prefix) for ref in refs.split())
    return sorted(found)


def _check(environment: str) -> None:
    if not NAME.match(environment):
        raise RecordError(
            f"{environment!r} cannot name an environment's record",
            hint="Use lower-case letters, digits, - and _, for example prod-eu.",
        )


class Repository:
    """A git repository with a work tree. Made by ``open_repository``."""

    def __init__(
        self,
        git: GitCommand,
        work_tree: Path,
        common_dir: Path,
        algorithm: str,
        remote: str = "",
        must_sign: bool = False,
        newest: bool = False,
    ) -> None:
        self.git = git
        self.objects = CatFile(git)
        self.work_tree = work_tree
        self.common_dir = common_dir  # shared by linked work trees, as the refs are
        self.algorithm = algorithm  # of object ids: "sha1" or "sha256"
        self.remote = remote  # that has the record of the environment that is worked on, "" for none
        self.must_sign = must_sign
        self.newest = newest  # whether a record that was fetched is read where the branch here has not come as far

    def limited(self, limit_s: float) -> Repository:
        """The same repository, in which a command of git is ended after so many seconds."""
        git = GitCommand(self.work_tree, limit_s)
        return Repository(
            git, self.work_tree, self.common_dir, self.algorithm, self.remote, self.must_sign, self.newest
        )

    @cached_property
    def signs(self) -> bool:
        """Whether every commit is signed: the environment asks for it, or the user does (``commit.gpgsign``)."""
        return (
            self.must_sign or self.git.line("config", "--type=bool", "--get", "commit.gpgsign", accept=(0, 1)) == "true"
        )

    @cached_property
    def identities(self) -> tuple[str, str]:
        """Author and committer as ``Name <email>``; raises ``RecordError`` when git has none."""
        author, committer = (self.git.line("var", f"GIT_{role}_IDENT") for role in ("AUTHOR", "COMMITTER"))
        return author.rsplit(" ", 2)[0], committer.rsplit(" ", 2)[0]

    def require_identity(self) -> None:
        """Raise ``RecordError`` unless git knows a name and an email; call it before anything is written."""
        _ = self.identities

    def actor(self) -> str:
        """``Name <email>`` of the committer; raises ``RecordError`` when there is none."""
        return self.identities[1]

    def head_commit(self) -> str:
        """The commit that the work tree stands on, "" before the first one."""
        return self.objects.resolve("HEAD^{commit}")

    def is_dirty(self, paths: Iterable[Path]) -> bool:
        """Whether one of these files or folders differs from the source commit, or is not in it.

        Files that are ignored do not count; a path outside the repository does.
        """
        inside: list[str] = []
        for path in paths:
            try:
                inside.append(path.resolve().relative_to(self.work_tree).as_posix())
            except ValueError:
                return True
        if not inside:
            return False
        options = ("--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=none")
        return self.git.run("--literal-pathspecs", "status", *options, "--", *inside) != b""

    def private_dir(self, environment: str) -> Path:
        """Where the journal of this clone lies, beside the refs. Not made here."""
        _check(environment)
        return self.common_dir / "llmctl" / environment

    def require_not_checked_out(self, environment: str) -> None:
        """Raise ``RecordError`` when a work tree stands on the record: writing would change it under the user."""
        ref = branch(environment)
        trees = self.git.run("worktree", "list", "--porcelain", "-z").decode(errors="surrogateescape").split("\0\0")
        for tree in trees:
            fields = dict(line.partition(" ")[::2] for line in tree.strip("\0").split("\0"))
            if fields.get("branch") == ref:
                raise RecordError(
                    f"the record llmctl/{environment} is checked out in {fields.get('worktree')}",
                    hint="Go back to your own branch there: `git switch main`. `llmctl audit show` shows the record.",
                )


def open_repository(path: Path, *, remote: str = "", must_sign: bool = False, newest: bool = False) -> Repository:
    """The repository that ``path``, a file or a folder, lies in.

    ``remote`` names the git remote that has the record, "" for this clone alone; with ``must_sign`` nothing is
    recorded unsigned. With ``newest``, for those who only read, ``git fetch`` is enough to see what others recorded.

    Raises ``RecordError`` with what to do: no git, git too old, no repository, a bare one.
    """
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise RecordError(f"{folder} does not exist", hint="Name a folder in a git repository.")
    git = GitCommand(folder)
    try:
        found = _ANSWER.fullmatch(git.line(*_ASK))
    except RecordError:
        _require_work_tree(git)
        raise
    if not found:  # an old git says back what it does not know
        _require_work_tree(git)
        raise RecordError(f"git does not say what repository {folder} is in", hint="Run `git rev-parse` there.")
    work_tree = Path(found["top"])
    return Repository(
        GitCommand(work_tree), work_tree, Path(found["common"]), found["algorithm"], remote, must_sign, newest
    )


def _require_work_tree(git: GitCommand) -> None:
    """Raise ``RecordError`` that says why a repository cannot be opened, where git is to blame or the work tree."""
    require_version(git)
    ask = ("-c", "safe.bareRepository=all", "rev-parse", "--is-bare-repository", "--is-inside-work-tree")
    bare, inside = git.line(*ask).split("\n")
    if inside != "true":
        kind = "a bare git repository" if bare == "true" else "git's own folder"
        raise RecordError(
            f"{git.folder} is {kind}, without a work tree",
            hint="Run llmctl in a clone: `git clone`, then change to its folder.",
        )
