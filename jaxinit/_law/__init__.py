"""Laws: found in traced programs, and drawn by one program for arrays of all shapes."""
