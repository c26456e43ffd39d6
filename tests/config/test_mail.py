import socketserver
import threading

import pytest
from django.core import mail as django_mail
from django.core.exceptions import ImproperlyConfigured

from config import mail

SMTP = "django.core.mail.backends.smtp.EmailBackend"
CONSOLE = "django.core.mail.backends.console.EmailBackend"


def test_without_a_url_mail_is_printed():
    assert mail.settings_of("")["EMAIL_BACKEND"] == CONSOLE


@pytest.mark.parametrize(
    ("url", "port", "tls", "ssl"),
    [
        ("smtp+tls://mia:secret@mail.example:2587", 2587, True, False),
        ("smtp+tls://mia:secret@mail.example", 587, True, False),
        ("smtp+ssl://mia:secret@mail.example", 465, False, True),
        ("smtp://mia:secret@mail.example", 25, False, False),
    ],
)
def test_each_kind_of_connection_has_its_port(url, port, tls, ssl):
    assert mail.settings_of(url) == {
        "EMAIL_BACKEND": SMTP,
        "EMAIL_HOST": "mail.example",
        "EMAIL_PORT": port,
        "EMAIL_HOST_USER": "mia",
        "EMAIL_HOST_PASSWORD": "secret",
        "EMAIL_USE_TLS": tls,
        "EMAIL_USE_SSL": ssl,
    }


def test_names_and_passwords_may_hold_any_character():
    found = mail.settings_of("smtp+tls://mia%40acme.example:a%3Ab%2Fc%40d@mail.example")

    assert found["EMAIL_HOST_USER"] == "mia@acme.example"
    assert found["EMAIL_HOST_PASSWORD"] == "a:b/c@d"
    assert found["EMAIL_HOST"] == "mail.example"


def test_a_server_without_a_name_and_password_is_asked_without():
    found = mail.settings_of("smtp://mail.example")

    assert (found["EMAIL_HOST_USER"], found["EMAIL_HOST_PASSWORD"]) == ("", "")


@pytest.mark.parametrize("url", ["mail.example", "imap://mail.example"])
def test_what_is_no_mail_server_is_refused_at_the_start(url):
    with pytest.raises(ImproperlyConfigured):
        mail.settings_of(url)


class Server(socketserver.StreamRequestHandler):
    """Accept one mail by minimal SMTP."""

    def handle(self):
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            self.server.heard.append(line)
            word = line[:4].upper().strip()
            if word == b"EHLO":
                self.wfile.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            elif word == b"AUTH":
                self.wfile.write(b"235 yes\r\n")
            elif word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while (part := self.rfile.readline()) != b".\r\n":
                    self.server.heard.append(part)
                self.wfile.write(b"250 taken\r\n")
            elif word == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 yes\r\n")


def test_a_mail_reaches_the_server_that_the_url_names(settings):
    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server:
        server.heard = []
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        port = server.server_address[1]
        found = mail.settings_of(f"smtp://mia:secret@127.0.0.1:{port}")
        for name, value in found.items():
            setattr(settings, name, value)

        django_mail.send_mail("Low", "85 of 100", None, ["ops@acme.example"])

        thread.join(30)
    heard = b"".join(server.heard)
    assert b"AUTH PLAIN" in heard
    assert b"ops@acme.example" in heard
    assert b"85 of 100" in heard
