"""The HTTP API and the page: `create_app(library)` in `rushes.serve.app`. Nothing is imported before it is needed."""
