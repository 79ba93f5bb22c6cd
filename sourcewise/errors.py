"""The one error a user can cause."""


class RequestError(ValueError):
    """The request was wrong: one line that names the file, line or key and what would be right.

    The command line prints it on standard error and exits with status 2; the library raises it.
    """


class DataWarning(UserWarning):
    """Something of the user's data is not taken as it stands; the work goes on, and the command line says so."""


class FaultyData(RequestError):
    """The files are there and can be opened, but what one of them holds cannot be trained on."""
