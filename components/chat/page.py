"""The page: a conversation that streams, beside what a reader must know of the model."""

import html
import os
from collections.abc import Iterator, Sequence
from typing import Any

# Before gradio is imported, which reads it then: nothing is sent anywhere.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from gradio.components.chatbot import TextMessage

from components.chat.api import NOTICE, room_for_prompt
from components.chat.dialogue import to_prompt
from components.chat.generation import Generator
from components.chat.messages import Message, Sampling
from components.chat.served_model import ServedModel
from components.common.errors import InputError
from components.common.instructions import DOCTOR

STYLE = """
.notice { border-left: .3rem solid #c62828; padding: .5rem .9rem; margin: .2rem 0 .6rem; font-weight: 600; }
.model { opacity: .75; font-size: .9rem; margin: 0; overflow-wrap: anywhere; }
footer { display: none !important; }
"""
_WELCOME = "Ask a question. Its answer may be wrong: check it, and ask a doctor where health is concerned."
_EXAMPLES = [
    "What causes scurvy, and how is it treated?",
    "I have had a cough and a fever for three days. What may it be?",
    "Which vaccine protects against tetanus?",
]


def create_page(model: ServedModel, generator: Generator) -> gr.Blocks:
    """Make the page; :data:`STYLE` and :func:`theme` belong to it.

    Args:
        model: What answers, with its card.
        generator: Shared with the endpoint: one answer at a time.
    """
    longest = max(2, min(1024, model.context_length // 2))
    with gr.Blocks(title=f"{model.name} - chat", analytics_enabled=False) as page:
        gr.HTML(_head(model))
        with gr.Sidebar(position="right", open=False, width=360):
            gr.Markdown("### Instruction and parameters")
            inputs: list[Any] = [
                gr.Textbox(DOCTOR, label="Instruction", lines=2, info="What the model is asked to be or to do."),
                gr.Slider(0, 2, 0.7, step=0.05, label="Temperature", info="0 always takes the likeliest word."),
                gr.Slider(0.05, 1, 0.9, step=0.05, label="Top p", info="Draw from the likeliest words of this share."),
                gr.Slider(1, 2, 1.1, step=0.05, label="Repetition penalty", info="1 does not mind repetition."),
                gr.Slider(1, longest, min(256, longest), step=1, label="Longest answer", info="In tokens."),
                gr.Number(-1, label="Seed", precision=0, minimum=-1, info="-1 gives another answer each time."),
            ]

        def respond(
            message: str,
            history: Sequence[dict[str, Any]],
            instruction: str,
            temperature: float,
            top_p: float,
            penalty: float,
            longest_answer: float,
            seed: float,
        ) -> Iterator[str]:
            sampling = Sampling.model_validate(
                {
                    "temperature": temperature,
                    "top_p": top_p,
                    "repetition_penalty": penalty,
                    "max_tokens": int(longest_answer),
                    "seed": None if seed < 0 else int(seed),
                }
            )
            yield from answer(model, generator, instruction, [*map(_message, history), message], sampling)

        gr.ChatInterface(
            respond,
            chatbot=_as_plain_text(
                gr.Chatbot(
                    label=model.name,
                    height="58vh",
                    placeholder=_WELCOME,
                    buttons=["copy"],
                    render_markdown=False,
                    elem_id="chat",
                )
            ),
            textbox=gr.Textbox(placeholder="Ask a medical question", container=False, scale=7, max_length=20_000),
            additional_inputs=inputs,
            examples=[[example] for example in _EXAMPLES],
            run_examples_on_click=False,
            cache_examples=False,
            flagging_mode="never",
            api_name="chat",
        )
        with gr.Accordion("Model card", open=False):
            gr.Markdown(model.card, sanitize_html=True)
    return page


def answer(
    model: ServedModel, generator: Generator, instruction: str, turns: Sequence[str | Message], sampling: Sampling
) -> Iterator[str]:
    """Yield the growing answer to the last turn, which is the user's text; what is wrong with it is said instead."""
    messages = [turn if isinstance(turn, Message) else Message(role="user", content=turn) for turn in turns]
    messages = [Message(role="system", content=instruction.strip() or DOCTOR), *messages]
    try:
        prompt = to_prompt(messages, model.tokenizer, room_for_prompt(model, sampling))
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error
    if prompt.forgotten:
        gr.Info(f"The first {prompt.forgotten} exchanges no longer fit and are left out.")
    text = ""
    for piece in generator.answer(prompt.ids, sampling):
        text += piece
        yield text
    if not text:
        yield "(The model has nothing to say to this; it may never have been trained on instructions.)"


def theme() -> gr.themes.Base:
    """Fonts of the system: none is fetched."""
    fonts, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.themes.Default(primary_hue="teal", font=fonts, font_mono=mono)


def _as_plain_text(chatbot: gr.Chatbot) -> gr.Chatbot:
    """Show a conversation as the text it is: neither side's HTML is markup, and no picture of it is fetched.

    Not a class of its own: gradio would write a stub file beside its source.
    """
    show, read = chatbot._postprocess_content, chatbot._preprocess_content

    def shown(content: Any) -> Any:
        found = show(content)
        if isinstance(found, TextMessage):
            found.text = html.escape(found.text, quote=False)
        return found

    def read_back(content: Any) -> Any:
        found: Any = read(content)
        if "text" in found:
            found["text"] = html.unescape(found["text"])
        return found

    chatbot._postprocess_content = shown  # type: ignore[assignment, method-assign]
    chatbot._preprocess_content = read_back  # type: ignore[assignment, method-assign]
    return chatbot


def _head(model: ServedModel) -> str:
    aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
    name = html.escape(model.name + aliases)
    return f'<p class="model">{name}</p><p class="notice" role="note">{html.escape(NOTICE)}</p>'


def _message(turn: dict[str, Any]) -> Message:
    content = turn["content"]
    if isinstance(content, list):  # gradio keeps a turn in parts
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return Message(role=turn["role"], content=str(content))
