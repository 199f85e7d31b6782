// Asks for the page again and puts its content in place: no reload, so scrolling and focus stay.
(() => {
  "use strict";
  const renew = async () => {
    try {
      const text = await (await fetch(location.href, { cache: "no-store" })).text();
      const fresh = new DOMParser().parseFromString(text, "text/html");
      document.title = fresh.title;
      const [here, there] = [document.getElementById("main"), fresh.getElementById("main")];
      if (there && here.innerHTML !== there.innerHTML && !here.contains(document.activeElement)) here.replaceWith(there);
    } catch {
      document.title = "stopped";
    }
  };
  setInterval(() => { if (!document.hidden) renew(); }, 2000);
})();
