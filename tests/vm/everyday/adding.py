import ctypes

# The foreign function interface writes a piece of code for a function that C calls back.
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))


def up_to(last):
    numbers = (ctypes.c_int * last)(*range(last, 0, -1))
    libc = ctypes.CDLL("libc.so.6")
    libc.qsort(numbers, last, ctypes.sizeof(ctypes.c_int), COMPARE(lambda a, b: a[0] - b[0]))
    assert list(numbers) == list(range(1, last + 1))
    return sum(numbers)
