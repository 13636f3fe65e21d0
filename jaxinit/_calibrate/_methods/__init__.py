"""The methods of `calibrate`: a file for each kind."""
