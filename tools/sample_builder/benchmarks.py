"""Questions about the sample's topics, in the official file formats of PubMedQA, MedMCQA and MedQA-USMLE."""

import json
import re
import uuid
from typing import Any

from sample_builder.draw import Draw
from sample_builder.jats import plain
from sample_builder.prose import article_for, capital
from sample_builder.study import study_words

Topic = dict[str, Any]
VERDICTS = ("yes", "no", "maybe")
LETTERS = "ABCD"
# The official sources are named so, and a UUID of the question's name keeps ids stable.
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
FIRST_PMID = 991_000_001
TEST_PER_VERDICT = 10

QUESTIONS = [
    "Does {treatment} lower the risk of {event} in {people}?",
    "Is {event} less frequent with {treatment} than with {comparator}?",
    "{Condition}: does {treatment} protect against {event}?",
]
AIMS = [
    "It is a matter of debate if {people} fare better when managed with {treatment}. The purpose of this work was to "
    "find out.",
    "Opinions on {treatment} for {condition} are divided. Our aim was to measure its consequences in one district.",
]
METHODS = [
    "Records of {n} persons seen in one district were abstracted by two students; {n1} had been managed with "
    "{treatment} and {n2} with {comparator}. We counted {event}.",
    "By month of birth {n1} persons were offered {treatment} and {n2} were offered {comparator}. The endpoint was "
    "{event}, taken from postal questionnaires.",
]
RESULTS = [
    "There were {e1} events among {n1} persons, against {e2} among {n2}. This corresponds to a relative risk of {rr} "
    "and a confidence interval from {lo} up to {hi}.",
    "Proportions were {p1} per cent and {p2} per cent. We calculated a relative risk of {rr}, the limits of "
    "confidence being {lo} and {hi}.",
]
ANSWERS = {
    "yes": "Fewer persons had the endpoint when managed with {treatment}, and we advise its use.",
    "no": "We could find no advantage of {treatment} and see no reason to prefer it to {comparator}.",
    "maybe": "An advantage of {treatment} may exist, but our figures leave room for doubt.",
}
# A second kind of question, whose verdict is not tied to the topic's trial.
MARKER_QUESTION = "Does {marker} at the first visit foretell {event} in {people}?"
MARKER_RESULTS = {
    "yes": "Persons beyond {cutoff}{munit} had the endpoint {e2} times in {n2}, the others {e1} times in {n1}.",
    "no": "Above and below {cutoff}{munit} the endpoint was equally common, with {e1} of {n1} and {e2} of {n2}.",
    "maybe": "The endpoint was seen in {e2} of {n2} above and in {e1} of {n1} below {cutoff}{munit} (P = 0.09).",
}
MARKER_ANSWERS = {
    "yes": "The first value of {marker} foretells {event} and can guide follow-up.",
    "no": "The first value of {marker} tells nothing about {event}.",
    "maybe": "The first value of {marker} may carry some information on {event}, but larger numbers are needed.",
}


def benchmark_files(topics: list[Topic]) -> dict[str, str]:
    """Return the text of every benchmark file by its path below the benchmarks folder."""
    pubmedqa, truth = pubmedqa_questions(topics)
    return {
        "pubmedqa/ori_pqal.json": json.dumps(pubmedqa, indent=4) + "\n",
        "pubmedqa/test_ground_truth.json": json.dumps(truth, indent=4) + "\n",
        "medmcqa/dev.json": _lines(_medmcqa(topics[:40], 0)),
        "medmcqa/train.json": _lines(_medmcqa(topics[:24], 1)),
        "medqa/phrases_no_exclude_test.jsonl": _lines([_diagnosis(topics, i) for i in range(36)]),
        "medqa/phrases_no_exclude_train.jsonl": _lines(
            [_diagnosis(topics, i) for i in range(36, len(topics))] + _best_treatments(topics)
        ),
    }


def pubmedqa_questions(topics: list[Topic]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return all questions by PubMed id, and the answers of those in the test half (ten of each verdict)."""
    by_verdict = {verdict: [topic for topic in topics if topic["verdict"] == verdict] for verdict in VERDICTS}
    test = [by_verdict[verdict][i] for i in range(TEST_PER_VERDICT) for verdict in VERDICTS]
    train = [topic for topic in topics if topic not in test]
    entries = [_pubmedqa(topic, topic["verdict"], about_marker=False) for topic in test + train]
    # "yes" prevails among the topics left; questions on markers make up for it.
    for i in range(6):
        entries += [_pubmedqa(test[2 * i + 1], "no", True), _pubmedqa(test[2 * i + 2], "maybe", True)]
    questions = {str(FIRST_PMID + i): entry for i, entry in enumerate(entries)}
    truth = {pmid: questions[pmid]["final_decision"] for pmid in list(questions)[: len(test)]}
    return questions, truth


def _pubmedqa(topic: Topic, verdict: str, about_marker: bool) -> dict[str, Any]:
    draw = Draw(f"pubmedqa {topic['key']} {about_marker}")
    words = _words(topic, verdict, draw)

    def fill(text: str) -> str:
        return capital(plain(text.format_map(words)))

    question = MARKER_QUESTION if about_marker else draw.pick(QUESTIONS)
    results = MARKER_RESULTS[verdict] if about_marker else draw.pick(RESULTS)
    answer = (MARKER_ANSWERS if about_marker else ANSWERS)[verdict]
    return {
        "QUESTION": fill(question),
        "CONTEXTS": [fill(draw.pick(AIMS)), fill(draw.pick(METHODS)), fill(results)],
        "LABELS": ["BACKGROUND", "METHODS", "RESULTS"],
        "MESHES": sorted(["Humans", *topic["mesh"]]),
        "YEAR": str(draw.whole(2003, 2016)),
        "reasoning_required_pred": verdict,
        "reasoning_free_pred": verdict,
        "final_decision": verdict,
        "LONG_ANSWER": fill(answer),
    }


def _words(topic: Topic, verdict: str, draw: Draw) -> dict[str, str]:
    names = {name: topic[name] for name in ("condition", "people", "treatment", "comparator", "event")}
    names["marker"] = topic["marker"][0]
    names["Condition"] = capital(topic["condition"])
    return names | study_words(draw, verdict, topic["measure"], topic["marker"])


def _medmcqa(topics: list[Topic], which: int) -> list[dict[str, Any]]:
    return [_medmcqa_question(topic, which, i) for i, topic in enumerate(topics)]


def _medmcqa_question(topic: Topic, which: int, index: int) -> dict[str, Any]:
    question, right, *wrong = topic["qa"][which]
    options = _arrange(right, wrong, index, Draw(f"medmcqa {topic['key']} {which}"))
    return {
        "question": question,
        "exp": None if index % 5 == 4 else f"Ans. is '{LETTERS[index % 4].lower()}' i.e., {right}",
        "cop": index % 4 + 1,
        **{f"op{letter.lower()}": option for letter, option in zip(LETTERS, options, strict=True)},
        "subject_name": topic["subject"],
        "topic_name": None if index % 3 else plain(capital(topic["short"])),
        "id": str(uuid.uuid5(NAMESPACE, f"medmcqa {topic['key']} {which}")),
        "choice_type": "multi" if index % 4 == 3 else "single",
    }


def _diagnosis(topics: list[Topic], index: int) -> dict[str, Any]:
    topic, draw = topics[index], Draw(f"medqa diagnosis {topics[index]['key']}")
    opening = draw.pick(
        ["The history of {0} includes", "The notes of {0} mention", "In the referral of {0} one reads of"]
    )
    # Worded unlike the case reports, so that no long run of words is both in a question and in an article.
    question = (
        f"{opening.format(_someone(topic))} {_other_words(topic['presentation'])}. You note "
        f"{_other_words(topic['sign'])}. "
        "Which of the following is the most likely diagnosis?"
    )
    others = [other for other in topics if other is not topic]
    # Two from the same field where there are two, so that the right answer isn't the only one that fits.
    near = [other for other in others if other["subject"] == topic["subject"]][:2]
    wrong = near + draw.some([other for other in others if other not in near], 3 - len(near))
    return _medqa(question, topic["condition"], [other["condition"] for other in wrong], index, topic, draw)


def _best_treatments(topics: list[Topic]) -> list[dict[str, Any]]:
    helped = [topic for topic in topics if topic["verdict"] == "yes"]
    return [_best_treatment(topic, topics, i) for i, topic in enumerate(helped)]


def _best_treatment(topic: Topic, topics: list[Topic], index: int) -> dict[str, Any]:
    draw = Draw(f"medqa treatment {topic['key']}")
    question = (
        f"{capital(_someone(topic))} with {topic['condition']} asks how to avoid "
        f"{topic['event']}. Which of the following has been shown to lower this risk?"
    )
    others = draw.some([other for other in topics if other is not topic], 2)
    wrong = [topic["comparator"], *(other["treatment"] for other in others)]
    return _medqa(question, topic["treatment"], wrong, index, topic, draw)


def _medqa(question: str, right: str, wrong: list[str], index: int, topic: Topic, draw: Draw) -> dict[str, Any]:
    options = [plain(capital(option)) for option in _arrange(right, wrong, index, draw)]
    return {
        "question": plain(question),
        "answer": plain(capital(right)),
        "options": dict(zip(LETTERS, options, strict=True)),
        "meta_info": "step1" if index % 2 else "step2&3",
        "answer_idx": LETTERS[index % 4],
        "metamap_phrases": [plain(phrase) for phrase in _phrases(topic)],
    }


def _other_words(text: str) -> str:
    for old, new in ((" and ", " as well as "), (" with ", " together with "), (" after ", " following ")):
        text = text.replace(old, new)
    return text


def _someone(topic: Topic) -> str:
    return f"{article_for(topic['patient'])} {topic['patient']}"


def _phrases(topic: Topic) -> list[str]:
    text = f"{topic['patient'].replace('-', ' ')}, {topic['presentation']}, {topic['sign']}"
    return [phrase.strip() for phrase in re.split(r", | and | with ", text)]


def _arrange(right: str, wrong: list[str], index: int, draw: Draw) -> list[str]:
    """Put the right answer at index modulo four, the others around it in random order."""
    options = draw.some(wrong, len(wrong))
    options.insert(index % 4, right)
    return options


def _lines(entries: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
