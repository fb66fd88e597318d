"""Tables and figures of the paper: experiments, their logs and the report of them."""
