"""The HTTP service; `spae serve` runs it, `spae.service.app.create_app` makes it. Needs the extra `serve`."""
