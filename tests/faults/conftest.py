from made_once import index, model, video  # noqa: F401 - fixtures
