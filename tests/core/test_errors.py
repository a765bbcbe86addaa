import penstock.core.errors as errors


def subclasses(of: type[errors.PenstockError]) -> set[type[errors.PenstockError]]:
    return {of}.union(*(subclasses(child) for child in of.__subclasses__()))


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for kind in subclasses(errors.PenstockError) - {errors.PenstockError}:
        if kind.__module__ != errors.__name__:
            continue  # a room may have a kind of its own, which nobody else sees
        assert f"{kind.__name__} " in drawn, kind
        assert str(kind.status) in next(line for line in drawn.splitlines() if f"── {kind.__name__} " in line)


def test_codes_are_stable_and_lower_case() -> None:
    for kind in subclasses(errors.PenstockError):
        assert kind.default_code == kind.default_code.lower()
