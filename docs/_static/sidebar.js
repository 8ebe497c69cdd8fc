// The list of pages is longer than a screen: show the part of it that has the open page.
window.addEventListener("load", () => {
  const list = document.querySelector(".sidebar-scroll");
  const page = document.querySelector(".sidebar-tree .current-page");
  if (list && page) {
    const distance = page.getBoundingClientRect().top - list.getBoundingClientRect().top;
    list.scrollBy({top: distance - list.clientHeight / 2, behavior: "instant"});
  }
});
