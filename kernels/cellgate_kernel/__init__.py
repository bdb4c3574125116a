"""What runs inside a sandbox, beside hostile code. Never imports `cellgate`."""

__version__ = "0.1.0"
