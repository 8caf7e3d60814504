"""Who somebody is, and what they may do where: decided here, asked by every interface."""
