"""SQuAD's nested json as flat rows: articles of paragraphs of questions, versions 1.1 and 2.0.

Format: https://rajpurkar.github.io/SQuAD-explorer/. A row has `question`, `context` and `answers`; `title`, `id`
and `is_impossible` where the file has them.
"""

from typing import Any

from hfft.messages import InputError, announce
from hfft.reading.source import cut, plural

UNIT = "question"  # what messages count in such a file: its ids


def is_nested(content: Any, field: str | None) -> bool:
    """Whether a JSON document is of this form, by what it holds; `field` is the list that the recipe asks for."""
    articles = content.get("data") if isinstance(content, dict) and field in (None, "data") else None
    return isinstance(articles, list) and any(
        isinstance(article, dict) and isinstance(article.get("paragraphs"), list) for article in articles
    )


def flat(content: dict[str, Any], name: str) -> tuple[list[dict], list[str]]:
    """(a row for each question, its id for messages). Raises InputError with a line for each place of another form."""
    rows: list[dict] = []
    ids: list[str] = []
    wrong: list[str] = []
    paragraphs = 0
    for where, title, paragraph in _paragraphs(content["data"], name, wrong):
        paragraphs += 1
        questions = paragraph.get("qas")
        if not isinstance(paragraph.get("context"), str) or not isinstance(questions, list):
            wrong.append(f"{where}: has no context (a text) or no qas (a list); write both")
            continue
        for number, question in enumerate(questions):
            if not isinstance(question, dict):
                wrong.append(f"{where}, question {number}: is no object; write question, id and answers")
                continue
            rows.append({**title, **_row(question, paragraph["context"])})
            ids.append(str(question.get("id", len(ids))))
    if wrong:
        raise InputError(*cut(wrong))
    impossible = sum(bool(row["answers"] and row["answers"]["is_impossible"]) for row in rows)
    told = f", {impossible:,} of them without an answer (is_impossible)" if impossible else ""
    sizes = f"{plural(len(content['data']), 'article')}, {plural(paragraphs, 'paragraph')}"
    announce(f"{name}: SQuAD's nested form, read as {plural(len(rows), 'question')} of {sizes}{told}")
    return rows, ids


def _paragraphs(articles: list, name: str, wrong: list[str]):
    """(place, {"title": …} if there is one, paragraph) of each; those of another form go to `wrong`."""
    for number, article in enumerate(articles):
        where = f"{name} article {number}"
        if not isinstance(article, dict) or not isinstance(article.get("paragraphs"), list):
            wrong.append(f"{where}: has no list of paragraphs, which other articles have; write one, or remove it")
            continue
        title = {"title": article["title"]} if "title" in article else {}
        for place, paragraph in enumerate(article["paragraphs"]):
            if isinstance(paragraph, dict):
                yield f"{where}, paragraph {place}", title, paragraph
            else:
                wrong.append(f"{where}, paragraph {place}: is no object; write context and qas")


def _row(question: dict[str, Any], context: str) -> dict[str, Any]:
    """A question's row; what its answers must be is seen with those of all other formats."""
    row = {"question": question.get("question"), "context": context}
    if "id" in question:
        row["id"] = question["id"]
    answers, flag = question.get("answers"), question.get("is_impossible", False)
    if "is_impossible" in question:
        row["is_impossible"] = flag
        answers = [] if answers is None and flag is True else answers
    row["answers"] = None if answers is None else {"references": answers, "is_impossible": flag}
    return row
