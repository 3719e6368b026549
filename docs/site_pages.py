"""The hook of mkdocs.yml: pages of the site that stand elsewhere in the repository, and the links between all pages.

A notebook is shown as `make demo` executed it, where outputs/demo is there.
"""

import os
import re
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PAGES = {  # a file of the repository -> its page
    "README.md": "index.md",
    "LOG.md": "log.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "params/README.md": "parameter_files.md",
    "notebooks/README.md": "notebooks.md",
}
for notebook in sorted(ROOT.glob("notebooks/0*.ipynb")):
    executed = ROOT / "outputs" / "demo" / notebook.name
    PAGES[f"notebooks/{notebook.name}"] = f"{'demo' if executed.is_file() else 'notebooks'}/{notebook.name}"


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files, config):
    for source, page in PAGES.items():
        if source.endswith(".md"):
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
        else:
            folder = ROOT / "outputs" if page.startswith("demo/") else ROOT
            files.append(File(page, str(folder), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point the links of a page to pages of the site; a link to another file of the repository becomes its text."""
    uri = page.file.src_uri
    source = next((name for name, target in PAGES.items() if target == uri), f"docs/{uri}")

    def address(target):
        """The address in the site of a link's target; None where the site does not have the file."""
        file, mark, anchor = target.partition("#")
        if not file or re.match(r"\w+:", file):
            return target
        name = os.path.normpath(os.path.join(os.path.dirname(source), file))
        target = PAGES.get(name, name.removeprefix("docs/") if name.startswith("docs/") else None)
        return target and os.path.relpath(target, os.path.dirname(uri) or ".") + mark + anchor

    def link(match):
        target = address(match[3])
        return f"{match[1]}[{match[2]}]({target})" if target else match[2]

    markdown = re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, markdown)
    return re.sub(r'(src|srcset)="([^"]+)"', lambda match: f'{match[1]}="{address(match[2])}"', markdown)
