"""Exact match and F1 of answers, as the official evaluation scripts of SQuAD 1.1 and 2.0 count them.

Papers: https://arxiv.org/abs/1606.05250, https://arxiv.org/abs/1806.03822; scripts: https://rajpurkar.github.io/SQuAD-explorer/.
Texts are compared in lower case, without ASCII punctuation and the articles a, an, the, word by word. The scripts know
words between blanks only; here every character of a script that writes none between words (Chinese, Japanese, Thai,
Lao, Khmer, Burmese) is a word, and in a text that has one, punctuation is what Unicode calls so. Any other text counts
as in the scripts.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af]"
)

Score = tuple[float, float]  # exact match, F1


def tokens(text: str) -> list[str]:
    """The words that are compared."""
    words = ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()
    if not UNSPACED.search(text):
        return words
    plain = "".join(" " if unicodedata.category(letter)[0] == "P" else letter for letter in " ".join(words))
    return UNSPACED.sub(lambda found: f" {found[0]} ", plain).split()


def scores(prediction: str, references: Sequence[str]) -> tuple[Score, Score]:
    """Of one answer by the rules of 1.1 and by those of 2.0: the best over the references, none of which is no answer.

    They differ where an answer is nothing but articles and punctuation: for 1.1 it shares no word with itself, for 2.0
    it is no answer.
    """
    found, right = tokens(prediction), [tokens(reference) for reference in references]
    told = [words for words in right if words] or [[]]
    second = float(found in told), max(_f1(found, words, of_nothing=float(found == words)) for words in told)
    if not right:
        return second, second
    return (float(found in right), max(_f1(found, words, of_nothing=0.0) for words in right)), second


def _f1(found: list[str], right: list[str], *, of_nothing: float) -> float:
    """Of two bags of words; `of_nothing` where one is empty."""
    if not found or not right:
        return of_nothing
    same = sum((Counter(found) & Counter(right)).values())
    precision, recall = same / len(found), same / len(right)
    return 2 * precision * recall / (precision + recall) if same else 0.0


def null_threshold(margins: np.ndarray, answered: np.ndarray, unanswered: np.ndarray) -> float:
    """The threshold with the best total score: a question is left without an answer where its margin is above it.

    `margins` (questions,): score of no answer minus that of the best answer; `answered` and `unanswered` (questions,):
    what the answer and none would count. Between two margins, of equally good places the nearest to 0.
    """
    order = np.argsort(margins, kind="stable")
    sizes = margins[order]
    places = np.concatenate([[sizes[0] - 1], (sizes[1:] + sizes[:-1]) / 2, [sizes[-1] + 1]])
    totals = np.concatenate([[0.0], np.cumsum(answered[order] - unanswered[order])])
    apart = np.concatenate([[True], sizes[1:] > sizes[:-1], [True]])  # no threshold parts equal margins
    best = np.flatnonzero(apart & (totals >= totals[apart].max() - 1e-9))
    return float(min(places[best], key=abs))
