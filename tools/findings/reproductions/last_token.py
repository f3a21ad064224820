"""The search of run_qa.py for the answer's tokens, where the answer is the last token of its window."""

offsets = [(0, 0), (0, 3), (0, 0), (0, 4), (5, 9), (0, 0), (0, 0)]  # [CLS] Who? [SEP] seen Anna [SEP] [PAD]
answer, first, last = (5, 9), 3, 4  # the characters of "Anna"; the first and the last token of the context
start = first
while start < len(offsets) and offsets[start][0] <= answer[0]:
    start += 1
end = last
while offsets[end][1] >= answer[1]:
    end -= 1
print(f"start {start - 1}, end {end + 1}; right is 4, 4")
