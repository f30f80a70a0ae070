"""The two ways in which a call can be refused."""


class PostmarkError(Exception):
    """A refusal in Postmark's own terms.

    `status` is the HTTP status, `error_code` Postmark's number: they overlap
    in value and mean different things.
    """

    def __init__(self, error_code, message, status=422, errors=None):
        super().__init__(message)
        self.errors = errors
        self.error_code = error_code
        self.message = message
        self.status = status

    def body(self):
        body = {"ErrorCode": self.error_code, "Message": self.message}
        return body if self.errors is None else {**body, "Errors": [error.body() for error in self.errors]}


class ControlError(Exception):
    """A call of the control API that makes no sense; a mistake in a test."""
