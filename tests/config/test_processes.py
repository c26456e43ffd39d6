from gunicorn.app.wsgiapp import WSGIApplication

from config.processes import process_specs


def test_headers_that_the_gateway_lets_through_reach_django():
    # The site's server answers longer ones itself, in HTML; the gateway bounds them.
    [site] = [spec for spec in process_specs() if spec.name == "site"]
    arguments = site.command[site.command.index("gunicorn") + 1 :]

    application = WSGIApplication.__new__(WSGIApplication)
    application.usage = application.prog = None
    application.load_default_config()
    parsed = application.cfg.parser().parse_args(arguments)

    assert parsed.limit_request_line == 0
    assert parsed.limit_request_field_size >= 64 * 1024
    assert parsed.limit_request_fields >= 10_000
