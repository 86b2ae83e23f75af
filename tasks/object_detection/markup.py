"""XML files that nobody has checked, with the line of each element."""

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from resdomains.training import BadSample

_DEEPEST = 100  # elements within one another


@dataclass(slots=True)
class Element:
    """An element of an XML file.

    Args:
        tag: Its name.
        line: Where it begins, from 1.
        text: The characters directly in it.
        children: The elements directly in it.
    """

    tag: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, tag: str) -> list["Element"]:
        """Return the children of that name."""
        return [child for child in self.children if child.tag == tag]

    def first(self, tag: str) -> "Element | None":
        """Return the first child of that name."""
        return next((child for child in self.children if child.tag == tag), None)

    def said(self, tag: str) -> str:
        """Return the stripped characters of the first child of that name; none if there is no such child."""
        found = self.first(tag)
        return found.text.strip() if found is not None else ""


def read_xml(path: str | Path) -> Element:
    """Read an XML file.

    A document type declaration is refused: entities, which such a declaration defines, can fill the memory or read
    other files.

    Raises:
        BadSample: If the file is missing, is not XML, is nested absurdly deeply, or declares a document type.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        what = "a folder, not a file" if isinstance(error, IsADirectoryError) else error.strerror
        raise BadSample(str(path), f"cannot be read ({what})") from error
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Element("", 0)
    within = [top]

    def begin(tag: str, _: dict[str, str]) -> None:
        element = Element(tag, parser.CurrentLineNumber)
        if len(within) > _DEEPEST:
            raise BadSample(
                f"{path}:{element.line}", f"nested too deeply, more than {_DEEPEST} elements"
            )
        within[-1].children.append(element)
        within.append(element)

    def end(_: str) -> None:
        within.pop()

    def characters(text: str) -> None:
        within[-1].text += text

    def refuse(*_: object) -> None:
        raise BadSample(
            f"{path}:{parser.CurrentLineNumber}",
            "declares a document type (<!DOCTYPE ...>), which is refused; remove the declaration",
        )

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise BadSample(f"{path}:{error.lineno}", f"not XML ({reason})") from error
    except (LookupError, UnicodeDecodeError) as error:  # its declaration names an encoding
        raise BadSample(f"{path}:1", f"not XML in an encoding that is read ({error})") from error
    except BadSample:
        raise
    except ValueError as error:
        raise BadSample(f"{path}:1", f"not XML in an encoding that is read ({error})") from error
    return top.children[0]
