"""Sampling from a teacher: samples, the teacher's endpoints, exact solutions, devices and energy."""
