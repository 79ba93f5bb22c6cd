// What two outputs do not share.
const difference = (() => {
  // Which of two lists' entries are not in a longest common subsequence: [in the first, in the second].
  function differing(a, b) {
    const best = [...Array(a.length + 1)].map(() => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    const odd = [new Set(a.keys()), new Set(b.keys())];
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i] === b[j]) {
        odd[0].delete(i++);
        odd[1].delete(j++);
      } else if (best[i + 1][j] >= best[i][j + 1]) i++;
      else j++;
    }
    return odd;
  }

  function words(text) {
    if (!Intl.Segmenter) return text.split(/(\s+)/);
    return [...new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)].map(({ segment }) => segment);
  }

  return { differing, words };
})();
