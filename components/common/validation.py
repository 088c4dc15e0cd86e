"""What is wrong with data from outside, in the words of an error message."""

from pydantic import ValidationError


def first_problem(error: ValidationError, whole: str = "line") -> str:
    """Return the first thing that is wrong as a clause, such as ``answer: Field required``.

    Args:
        error: What pydantic found.
        whole: What to call the data where no field of it is to blame.
    """
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or whole
    return f"{field}: {first['msg']}"
