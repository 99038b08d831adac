"""Descriptions as English."""

from mmjax.data.shapes.descriptions import OPPOSITE, Description


def caption(description: Description) -> str:
    """The caption of a description, one to one.

    >>> from mmjax.data.shapes.vocabulary import Thing
    >>> star, ring = Thing("small", "red", "star"), Thing("large", "blue", "ring")
    >>> caption(Description("left of", "grey", (star, ring)))
    'a small red star left of a large blue ring on a grey field'
    >>> caption(Description("three", "grey", (star,)))
    'three small red stars on a grey field'
    """
    return f"{_subject(description)} on a {description.background} field"


def paraphrases(description: Description) -> list[str]:
    """Captions that say the same, the one of `caption` first.

    >>> from mmjax.data.shapes.vocabulary import Thing
    >>> star, ring = Thing("small", "red", "star"), Thing("large", "blue", "ring")
    >>> for text in paraphrases(Description("left of", "grey", (star, ring))):
    ...     print(text)
    a small red star left of a large blue ring on a grey field
    a large blue ring right of a small red star on a grey field
    on a grey field, a small red star left of a large blue ring
    on a grey field, a large blue ring right of a small red star
    """
    forms = [description]
    if description.is_pair:
        forms.append(mirror(description))
    fronted = [f"on a {form.background} field, {_subject(form)}" for form in forms]
    return [caption(form) for form in forms] + fronted


def mirror(pair: Description) -> Description:
    """The same pair, told from the other thing."""
    return Description(OPPOSITE[pair.form], pair.background, pair.things[::-1])


def _subject(description: Description) -> str:
    form, _, things = description
    if description.is_pair:
        return f"a {things[0]} {form} a {things[1]}"
    return f"a {things[0]}" if form == "one" else f"{form} {things[0].plural}"
