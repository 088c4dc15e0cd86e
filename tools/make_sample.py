"""Makes the bundled synthetic sample: articles, questions, instructions, tokenizer.

    python tools/make_sample.py           write components/download/sample/
    python tools/make_sample.py --check   exit 1 if the files there differ from what would be written

Every byte follows from the files in tools/sample_builder/. All text is synthetic and in the public domain (CC0 1.0).
"""

import argparse
import json
import sys
from pathlib import Path

from sample_builder.benchmarks import benchmark_files
from sample_builder.instructions import instruction_lines
from sample_builder.jats import plain, render
from sample_builder.plan import Entry, entries, index_entry
from sample_builder.prose import Section, load_topics
from sample_builder.tokenizer import tokenizer_files

SAMPLE = Path(__file__).resolve().parent.parent / "components" / "download" / "sample"
OWN_FOLDERS = ("articles", "benchmarks", "instructions", "tokenizer")


def main(arguments: list[str] | None = None) -> int:
    """Write or check the sample; return the exit status."""
    parser = argparse.ArgumentParser(description="Make the bundled synthetic sample.")
    parser.add_argument("--check", action="store_true", help="compare with the files on disk and write nothing")
    parser.add_argument("--folder", type=Path, default=SAMPLE, help="where the sample lies")
    options = parser.parse_args(arguments)
    files = sample_files()
    if options.check:
        return _check(options.folder, files)
    _write(options.folder, files)
    return 0


def sample_files() -> dict[str, bytes]:
    """Return the content of every generated file by its path below the sample folder."""
    articles = entries()
    index = [index_entry(entry) for entry in articles]
    questions = benchmark_files(list(load_topics().values()))
    files = {f"articles/{entry.name}": render(entry.paper) for entry in articles}
    files["articles.json"] = (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode()
    files |= {f"benchmarks/{path}": text.encode() for path, text in questions.items()}
    files["instructions/instructions.jsonl"] = instruction_lines().encode()
    texts = [*map(_text, articles), *_question_texts(questions)]
    files |= {f"tokenizer/{name}": text.encode() for name, text in tokenizer_files(texts).items()}
    return files


def _text(entry: Entry) -> str:
    prose = entry.paper.prose
    return "\n".join([plain(prose.title), *map(_section_text, [*prose.abstract, *prose.body])])


def _section_text(section: Section) -> str:
    return "\n".join([section.title, *map(plain, section.paragraphs), *map(_section_text, section.sections)])


def _question_texts(questions: dict[str, str]) -> list[str]:
    return [text for path, text in questions.items() if not path.endswith("test_ground_truth.json")]


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for path in _on_disk(folder) - set(files):
        (folder / path).unlink()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    sys.stdout.write(f"Wrote {len(files)} files, {sum(map(len, files.values())):,} bytes, to {folder}\n")


def _check(folder: Path, files: dict[str, bytes]) -> int:
    found = _on_disk(folder)
    different = sorted(path for path in found & set(files) if (folder / path).read_bytes() != files[path])
    problems = [f"missing: {path}" for path in sorted(set(files) - found)]
    problems += [f"not made by this tool: {path}" for path in sorted(found - set(files))]
    problems += [f"differs: {path}" for path in different]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def _on_disk(folder: Path) -> set[str]:
    paths = [path for name in OWN_FOLDERS for path in (folder / name).rglob("*") if path.is_file()]
    if (folder / "articles.json").is_file():
        paths.append(folder / "articles.json")
    return {path.relative_to(folder).as_posix() for path in paths}


if __name__ == "__main__":
    sys.exit(main())
