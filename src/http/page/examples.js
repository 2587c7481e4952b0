// Something to begin with, in the languages where we can write it well; English for the others.

const byLanguage = {
  en: [
    {
      label: "Honey bees",
      source: true,
      text: `Honey bees live in colonies of up to 60,000 insects. Almost all of them are workers, which are female. Each colony has a single queen, who can lay 2,000 eggs a day. A worker that has found flowers dances on the comb to tell the others how far away they are and in which direction. To make one kilogram of honey, bees visit about four million flowers. In winter the bees do not sleep; they gather in a ball around the queen and shiver to keep her warm.`,
    },
    { label: "The solar system", text: "The solar system" },
    { label: "Volcanoes", text: "Volcanoes" },
  ],
  ja: [
    {
      label: "ミツバチ",
      source: true,
      text: `ミツバチは最大六万匹の群れで暮らします。そのほとんどは雌の働き蜂です。群れには女王蜂が一匹だけいて、一日に二千個の卵を産むことができます。花を見つけた働き蜂は、巣の上で踊り、花までの距離と方角を仲間に伝えます。一キログラムの蜂蜜を作るために、ミツバチはおよそ四百万の花を訪れます。冬のあいだも眠らず、女王蜂を囲んで球になり、体を震わせて温めます。`,
    },
    { label: "太陽系", text: "太陽系" },
    { label: "日本の城", text: "日本の城" },
  ],
};

/** `{ label, text, source? }`s: a text, with which a small model does best, and two topics. */
export function examples(language) {
  return byLanguage[language] ?? byLanguage.en;
}
