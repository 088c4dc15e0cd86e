"""Parsing XML of strangers: no entities of their own, no network, bounded size and depth, common faults repaired."""

import codecs
import re
from html.entities import html5
from typing import TypeVar

from lxml import etree

from components.common.errors import InputError

Value = TypeVar("Value")

_PROLOG = re.compile(rb"<[A-Za-z_]")
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_DECLARED_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_STRANGE_ENTITY = re.compile(rb"&(?!(?:lt|gt|amp|quot|apos);|#)")
_ENTITY_OR_LITERAL = re.compile(
    rb"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|&(?!#)([A-Za-z][A-Za-z0-9]*;)?", re.DOTALL
)
_CONTROLS = bytes(set(range(32)) - {9, 10, 13})
_CONTROL_REFERENCE = re.compile(rb"&#(?:0*(?:[0-8]|1[124-9]|2\d|3[01])|[xX]0*(?:[0-8bBcCeEfF]|1[0-9a-fA-F]));")
_PREDEFINED = {b"lt;", b"gt;", b"amp;", b"quot;", b"apos;"}
# Portuguese in Latin-1 has some 3% of bytes above 127; far more of them is another encoding, which would be guesswork.
_MAX_MISCODED = 0.08

# libxml2 takes some 130 bytes for an element or a text, twice as much for an attribute: a file of nothing else would
# fill thirty times its size. Real articles take 8 to 16 times theirs.
_NODE_BYTES, _ATTRIBUTE_BYTES = 130, 240
_FREE_BYTES, _MAX_GROWTH = 64 * 1024 * 1024, 10
_MAX_REFERENCES = 1_000_000
_PRINTABLE = bytes(range(32, 127))

_CUT_SHORT = {"ERR_DOCUMENT_END", "ERR_TAG_NOT_FINISHED", "ERR_GT_REQUIRED", "ERR_COMMENT_NOT_FINISHED"}


class ArticleError(InputError):
    """An article that cannot become text.

    Attributes:
        reason: A short, countable reason such as ``truncated-xml``.
        detail: What exactly was seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Make the error of one reason."""
        super().__init__(f"The article is unusable ({reason}): {detail or 'nothing more is known'}.")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ArticleError"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


def parse(xml: bytes, max_bytes: int) -> tuple[etree._Element, tuple[str, ...]]:
    """Parse one untrusted XML document.

    Repaired, and told: named HTML entities and bare ampersands, bytes that are not of the declared encoding, control
    characters. Comments and processing instructions are not in the tree. What would take more memory than ten times
    the document (and 64 MB) is refused before it is parsed.

    Args:
        xml: The document's bytes.
        max_bytes: Refuse more than this.

    Returns:
        The root element and the names of the repairs made (``entities``, ``encoding``, ``control-characters``).

    Raises:
        ArticleError: not-xml, malformed-xml, truncated-xml, entity-declarations, unknown-entity, unknown-encoding,
            too-large, too-deep.
    """
    if len(xml) > max_bytes:
        raise ArticleError("too-large", f"{len(xml)} bytes, {max_bytes} allowed")
    xml, repairs = _as_ascii_superset(xml)
    xml = xml.lstrip()
    if not xml.startswith(b"<"):
        raise ArticleError("not-xml", "no markup at the start" if xml else "empty")
    _refuse_bloat(xml)
    _refuse_entity_declarations(xml)
    xml, recoded = _as_declared(xml)
    repairs += recoded
    if _STRANGE_ENTITY.search(xml):
        repaired = _ENTITY_OR_LITERAL.sub(_resolve_entity, xml)
        if repaired != xml:
            xml, repairs = repaired, [*repairs, "entities"]
    try:
        root = _parse(xml)
    except etree.XMLSyntaxError as error:
        root, more = _repair(xml, error)
        repairs = [*repairs, *more]
    # An exotic encoding may hide declarations from the search in the bytes; nothing was expanded all the same.
    dtd = root.getroottree().docinfo.internalDTD
    if dtd is not None and any(dtd.iterentities()):  # type: ignore[attr-defined]
        raise ArticleError("entity-declarations", "the document declares entities of its own")
    return root, tuple(repairs)


def all_text(element: etree._Element) -> str:
    """Return all text within an element, as it stands."""
    if not len(element):
        return element.text or ""
    return etree.tostring(element, method="text", encoding="unicode", with_tail=False)  # 4 times faster than itertext


def local_name(element: etree._Element) -> str:
    """Return the element's name without namespace; "" for a comment or processing instruction."""
    tag = element.tag
    if not isinstance(tag, str):
        return ""
    return tag.rpartition("}")[2] if "}" in tag else tag


def child_named(element: etree._Element, name: str) -> etree._Element | None:
    """Return the first child of that name, whatever its namespace."""
    for child in element:  # mostly it is the first one
        if local_name(child) == name:
            return child
    return None


class ByName(dict[object, Value]):
    """Finds what belongs to the tag of an element, with or without namespace; a default for a name that is unknown.

    It learns the tags with namespaces that it meets: a look-up costs less than taking a name apart.
    """

    def __init__(self, names: dict[str, Value], default: Value, otherwise: Value) -> None:
        """Begin with names without namespaces; `otherwise` belongs to what has no name, such as comments."""
        super().__init__(names.items())
        self._default = default
        self._otherwise = otherwise

    def __missing__(self, tag: object) -> Value:
        value = self.get(tag.rpartition("}")[2], self._default) if isinstance(tag, str) else self._otherwise
        if len(self) < 5000:  # strange tags must not fill the memory of a long run
            self[tag] = value
        return value


def _parse(xml: bytes) -> etree._Element:
    return etree.fromstring(xml, _parser())


def _parser(recover: bool = False) -> etree.XMLParser:
    return etree.XMLParser(
        recover=recover,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )


def _repair(xml: bytes, error: etree.XMLSyntaxError) -> tuple[etree._Element, list[str]]:
    """Parse a document that failed once, after mending its characters or forgiving undeclared namespace prefixes."""
    if _code(error) == etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE:
        parser = _parser(recover=True)
        root = etree.fromstring(xml, parser)
        if all(entry.domain == etree.ErrorDomains.NAMESPACE for entry in parser.error_log):
            return root, ["namespaces"]
    mended, repairs = _repair_characters(xml)
    if not repairs:
        raise _article_error(error, xml) from error
    try:
        return _parse(mended), repairs
    except etree.XMLSyntaxError as second:
        raise _article_error(second, mended) from second


def _as_ascii_superset(xml: bytes) -> tuple[bytes, list[str]]:
    """Bring UTF-16 and UTF-32 to UTF-8 (the checks read bytes), drop a byte order mark."""
    for mark, encoding in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if xml.startswith(mark):
            return _from_wide(xml, encoding), []
    if xml[:2] in (b"<\0", b"\0<"):
        return _from_wide(xml, "utf-16-le" if xml[:1] == b"<" else "utf-16-be"), []
    return xml.removeprefix(codecs.BOM_UTF8), []


def _from_wide(xml: bytes, encoding: str) -> bytes:
    try:
        text = xml.decode(encoding)
    except UnicodeDecodeError as error:
        raise ArticleError("truncated-xml", f"its {encoding} breaks off: {error.reason}") from error
    return _XML_DECLARATION.sub("", text, count=1).encode()


def _refuse_bloat(xml: bytes) -> None:
    """Refuse what is small as a file and huge as a tree."""
    if len(xml) * _ATTRIBUTE_BYTES <= _FREE_BYTES:
        return
    tree = xml.count(b"<") * _NODE_BYTES + xml.count(b"=") * _ATTRIBUTE_BYTES
    if tree > _FREE_BYTES + _MAX_GROWTH * len(xml):
        raise ArticleError("too-large", f"{len(xml)} bytes would become a tree of about {tree // 1_000_000} MB")
    references = xml.count(b"&")
    if references > _MAX_REFERENCES:
        raise ArticleError("too-large", f"{references} ampersands, {_MAX_REFERENCES} allowed")


def _as_declared(xml: bytes) -> tuple[bytes, list[str]]:
    """Correct a declared encoding that the bytes disprove; refuse one in which the checks would read other things."""
    declared = _DECLARED_ENCODING.match(xml)
    if declared is None:
        return xml, []
    encoding = declared[1].decode().lower()
    try:
        name = codecs.lookup(encoding).name
        is_superset = _PRINTABLE.decode(encoding) == _PRINTABLE.decode()
    except (LookupError, UnicodeError, ValueError):
        name, is_superset = encoding, False
    wide = name.startswith(("utf-16", "utf-32", "ucs", "iso-10646-ucs"))  # but its first bytes are single ones
    if wide or (name in ("iso8859-1", "cp1252") and not xml.isascii() and _is_utf8(xml)):
        return xml[xml.index(b"?>") + 2 :].lstrip(), ["encoding"]
    if not is_superset:
        raise ArticleError("unknown-encoding", f"{encoding[:40]!r} is not known")
    return xml, []


def _is_utf8(xml: bytes) -> bool:
    try:
        xml.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_entity_declarations(xml: bytes) -> None:
    first = _PROLOG.search(xml)
    prolog = xml[: first.start()] if first else xml
    if b"<!ENTITY" in prolog and b"<!ENTITY" in _COMMENT.sub(b"", prolog):
        raise ArticleError("entity-declarations", "the document declares entities of its own")


def _resolve_entity(match: re.Match[bytes]) -> bytes:
    name = match[1]
    if name is None:
        return b"&amp;" if match[0] == b"&" else match[0]
    if name in _PREDEFINED:
        return match[0]
    characters = html5.get(name.decode())
    if characters is None:
        raise ArticleError("unknown-entity", f"&{name.decode()[:40]} is not defined")
    return b"".join(b"&#%d;" % ord(character) for character in characters)


def _repair_characters(xml: bytes) -> tuple[bytes, list[str]]:
    """Mend bytes that are no UTF-8 and control characters that XML forbids; the list names what was mended."""
    repairs = []
    declared = _DECLARED_ENCODING.match(xml)
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if encoding in ("utf-8", "utf8", "ascii", "us-ascii"):
        text = _decode_leniently(xml)
        repaired = _XML_DECLARATION.sub("", text, count=1).encode()
        if text.encode() != xml or encoding in ("ascii", "us-ascii"):
            repairs.append("encoding")
            xml = repaired
    cleaned = _CONTROL_REFERENCE.sub(b"", xml.translate(None, _CONTROLS))
    if cleaned != xml:
        repairs.append("control-characters")
    return cleaned, repairs


def _decode_leniently(xml: bytes) -> str:
    """Decode UTF-8, taking single bytes that are none for Windows-1252."""
    try:
        return xml.decode()
    except UnicodeDecodeError:
        text = xml.decode(errors="surrogateescape")
    miscoded = sum("\udc80" <= character <= "\udcff" for character in text)
    if miscoded > _MAX_MISCODED * len(text):
        raise ArticleError("unknown-encoding", f"{miscoded} of {len(text)} characters are not of the declared encoding")
    return re.sub("[\udc80-\udcff]", lambda match: _windows_1252(ord(match[0]) - 0xDC00), text)


def _windows_1252(byte: int) -> str:
    return bytes([byte]).decode("cp1252", errors="replace")


def _code(error: etree.XMLSyntaxError) -> int:
    return getattr(error, "code", None) or 0


def _article_error(error: etree.XMLSyntaxError, xml: bytes) -> ArticleError:
    detail = str(error.msg)[:200]
    code = etree.ErrorTypes._getName(_code(error), "")
    if "Excessive depth" in detail:
        return ArticleError("too-deep", detail)
    if code == "ERR_RESOURCE_LIMIT":
        return ArticleError("too-large", detail)
    if code in ("ERR_UNKNOWN_ENCODING", "ERR_UNSUPPORTED_ENCODING"):
        return ArticleError("unknown-encoding", detail)
    if not _PROLOG.search(xml):
        return ArticleError("truncated-xml" if xml.lstrip()[:2] in (b"<?", b"<!") else "not-xml", detail)
    if code in _CUT_SHORT or not xml.rstrip().endswith(b">") or "Premature end" in detail:
        return ArticleError("truncated-xml", detail)
    return ArticleError("malformed-xml", detail)
